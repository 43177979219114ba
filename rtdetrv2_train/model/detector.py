"""RT-DETRv2 put together: backbone, hybrid encoder, decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtdetrv2_train.batch import Targets
from rtdetrv2_train.model.decoder import Decoder
from rtdetrv2_train.model.hybrid_encoder import HybridEncoder
from rtdetrv2_train.model.output import ModelOutput

COARSEST_STRIDE = 32


class RTDETRv2(nn.Module):
    """The detector (Lv et al., arXiv 2407.17140).

    Args:
        backbone: maps images to features of strides 8, 16 and 32.
        encoder: fuses them.
        decoder: finds objects in the fused maps.
    """

    def __init__(self, backbone: nn.Module, encoder: HybridEncoder, decoder: Decoder) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.encoder = encoder

    def forward(self, images_B3HW: Tensor, targets: Targets | None = None) -> ModelOutput:
        """Detect objects.

        Args:
            images_B3HW: RGB, ``[B, 3, H, W]``, uint8, or floating point in [0, 1]; H and W multiples of 32.
            targets: ground truth; needed in training, for denoising queries.

        Returns:
            logits and boxes; see :class:`ModelOutput` for their shapes in training and evaluation.

        Raises:
            ValueError: if H or W is not a multiple of 32.
        """
        height, width = images_B3HW.shape[2:]
        if height % COARSEST_STRIDE or width % COARSEST_STRIDE:
            raise ValueError(f"image height and width must be multiples of {COARSEST_STRIDE}, not {height} x {width}")
        if images_B3HW.dtype == torch.uint8:
            images_B3HW = images_B3HW.float() / 255
        # every later map keeps this layout, which is the faster one on CPUs and GPUs alike
        images_B3HW = images_B3HW.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.encoder(self.backbone(images_B3HW)), targets)
