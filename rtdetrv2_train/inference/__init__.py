"""Inference: the detector, sources of images, and writers of predictions."""
