"""The RT-DETRv2 detector: backbone, hybrid encoder, decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rtdetrv2_train.errors import UserError, nearest
from rtdetrv2_train.model.architecture import COARSEST_STRIDE, Architecture
from rtdetrv2_train.model.backbones.hgnetv2 import HGNetV2
from rtdetrv2_train.model.backbones.resnet import ResNetVD, ResNetVDConfig
from rtdetrv2_train.model.decoder import Decoder
from rtdetrv2_train.model.hybrid_encoder import HybridEncoder
from rtdetrv2_train.model.output import ModelOutput
from rtdetrv2_train.types import Targets


class RTDETRv2(nn.Module):
    """The detector (Lv et al., arXiv 2407.17140).

    Args:
        architecture: description of all its parts.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels = architecture.backbone.stage_channels[1:]
        widths = [architecture.encoder.width] * len(channels)
        # The order of building decides which weights a seed gives; the order of registering that of the parameters.
        encoder = HybridEncoder(architecture.encoder, channels)
        decoder = Decoder(architecture.decoder, widths, architecture.num_classes, architecture.image_size)
        backbone = architecture.backbone
        image_channels = architecture.in_channels
        self.backbone = (
            ResNetVD(backbone, image_channels)
            if isinstance(backbone, ResNetVDConfig)
            else HGNetV2(backbone, image_channels)
        )
        self.decoder = decoder
        self.encoder = encoder
        self.frozen: tuple[str, ...] = ()  # names of the parts that are not trained

    def forward(self, images_BCHW: Tensor, targets: Targets | None = None) -> ModelOutput:
        """Detect objects.

        Args:
            images_BCHW: RGB, or C channels in the architecture's number, ``[B, C, H, W]``; uint8, or floating point in
                [0, 1]; H and W multiples of 32.
            targets: ground truth, needed in training for denoising queries.

        Returns:
            logits and boxes; see :class:`ModelOutput` for their shapes in training and evaluation.

        Raises:
            ValueError: if H or W is not a multiple of 32.
        """
        height, width = images_BCHW.shape[2:]
        if height % COARSEST_STRIDE or width % COARSEST_STRIDE:
            raise ValueError(f"image height and width must be multiples of {COARSEST_STRIDE}, not {height} x {width}")
        if images_BCHW.dtype == torch.uint8:
            images_BCHW = images_BCHW.float() / 255
        # all later maps keep the channels-last layout, which is faster on CPUs and GPUs alike
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
        return self.decoder(self.encoder(self.backbone(images_BCHW)), targets)

    def freeze(self, names: Sequence[str]) -> None:
        """Do not train some parts: no gradient of theirs is computed, and their BatchNorm statistics stay.

        Args:
            names: of submodules, such as ``backbone`` or ``encoder.encoder.0``.

        Raises:
            UserError: if there is no such part, or nothing is left to train.
        """
        parts = dict(self.named_modules())
        for name in names:
            if not name or name not in parts:
                raise UserError(
                    f"freeze: the model has no part '{name}': {nearest(name, parts)}there are backbone, encoder, "
                    "decoder and their own parts"
                )
            parts[name].requires_grad_(False)
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UserError(f"freeze=[{','.join(names)}] leaves nothing to train: leave out a part")
        self.frozen = (*self.frozen, *names)
        self.train(self.training)

    def train(self, mode: bool = True) -> RTDETRv2:
        """As of any module, except that BatchNorm of frozen parts stays in evaluation mode."""
        super().train(mode)
        for module in (module for name in self.frozen for module in self.get_submodule(name).modules()):
            if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm):
                module.eval()
        return self

    def use_decoder_layers(self, num_eval_layers: int | None) -> None:
        """Use only the first decoder layers in evaluation.

        Args:
            num_eval_layers: number of layers; None: leave the model's own number.

        Raises:
            UserError: if the decoder has fewer layers.
        """
        if num_eval_layers is None:
            return
        available = self.architecture.decoder.num_layers
        if not 1 <= num_eval_layers <= available:
            raise UserError(f"num_eval_layers={num_eval_layers}: this model's decoder has layers 1 to {available}")
        self.decoder.num_eval_layers = num_eval_layers
