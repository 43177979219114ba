"""Backbones: features at strides 8, 16 and 32."""
