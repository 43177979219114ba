"""Which published model a set of architecture facts looks like, in the words of an error message."""

from __future__ import annotations

from rtdetrv2_train.weights.architecture import ArchitectureFacts

_PUBLISHED_POINTS = (4, 4, 4)
# Block, blocks of each stage, encoder width, encoder layers, CSP expansion, decoder layers.
_PUBLISHED: dict[tuple[str, tuple[int, ...], int, int, float, int], str] = {
    ("basic", (2, 2, 2, 2), 256, 1, 0.5, 3): "r18vd",
    ("basic", (3, 4, 6, 3), 256, 1, 0.5, 4): "r34vd",
    ("bottleneck", (3, 4, 6, 3), 256, 1, 0.5, 6): "r50vd_m",
    ("bottleneck", (3, 4, 6, 3), 256, 1, 1.0, 6): "r50vd",
    ("bottleneck", (3, 4, 23, 3), 384, 1, 1.0, 6): "r101vd",
    ("hg", (1, 1, 3, 1), 256, 1, 1.0, 6): "hgnetv2_l",
    ("hg", (1, 2, 5, 2), 384, 1, 1.0, 6): "hgnetv2_x",
    ("hg", (2, 3, 6, 3), 512, 2, 1.0, 6): "hgnetv2_h",
}
_BACKBONES = {"resnet_vd": "ResNet-vd", "hgnetv2": "HGNetv2"}


def looks_like(facts: ArchitectureFacts) -> str:
    """The name of the published model with this shape, e.g. ``r50vd``, or a description of an unknown one.

    Sampling points other than 4 a level are added to the name, as in ``r18vd with 1, 1, 1 sampling points``.
    """
    name = _PUBLISHED.get(_key(facts))
    if name is None:
        blocks = ", ".join(map(str, facts.backbone_blocks))
        return (
            f"an unknown model with a {_BACKBONES[facts.backbone]} backbone of {blocks} {facts.backbone_block} blocks, "
            f"encoder width {facts.encoder_width}, CSP expansion {facts.csp_expansion:g} and "
            f"{facts.decoder_layers} decoder layers"
        )
    if facts.num_points != _PUBLISHED_POINTS:
        name += f" with {', '.join(map(str, facts.num_points))} sampling points"
    return name


def configuration_of(facts: ArchitectureFacts) -> str | None:
    """The command-line overrides that choose this model, or None for an unknown one."""
    name = _PUBLISHED.get(_key(facts))
    if name is None:
        return None
    if facts.num_points == _PUBLISHED_POINTS:
        return f"model={name}"
    return f"model={name} model.architecture.decoder.num_points=[{','.join(map(str, facts.num_points))}]"


def _key(facts: ArchitectureFacts) -> tuple[str, tuple[int, ...], int, int, float, int]:
    return (
        facts.backbone_block,
        facts.backbone_blocks,
        facts.encoder_width,
        facts.encoder_layers,
        facts.csp_expansion,
        facts.decoder_layers,
    )
