from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.architecture import Architecture
from rtdetrv2_train.model.deformable_attention import MultiScaleDeformableAttention
from rtdetrv2_train.model.hybrid_encoder import sine_cosine_positions
from rtdetrv2_train.model.postprocessing import detections_from
from rtdetrv2_train.runs.model_configuration import configured_architecture
from rtdetrv2_train.types import Targets
from tests.support import build, composed, made, small_model


def nano(**decoder: object) -> nn.Module:
    torch.manual_seed(0)
    return build(composed("model=nano"), num_classes=5, **decoder)


@pytest.mark.parametrize("size", [(96, 160), (160, 96), (64, 64), (32, 32)])
def test_any_multiple_of_32_trains_and_evaluates_batch_by_batch(size: tuple[int, int]) -> None:
    model, targets = nano(), Targets.from_list(made.targets([2, 1], num_classes=5))
    images = made.image("images", 2, *size)
    losses = Criterion()(model(images, targets), targets)
    torch.stack(tuple(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        output = model.eval()(images)
    positions = sum(size[0] // stride * (size[1] // stride) for stride in (8, 16, 32))
    assert output.boxes.shape == (2, min(model.decoder.num_queries, positions), 4)


def test_an_image_size_that_is_no_multiple_of_32_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32, not 100 x 128"):
        nano()(torch.zeros(1, 3, 100, 128))


def test_uint8_and_float_images_give_the_same_detections() -> None:
    model = nano().eval()
    pixels = (made.image("bytes", 1, 64, 64) * 255).to(torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).logits, model(pixels.float() / 255).logits)


@pytest.mark.parametrize("counts", [[0, 0], [0, 3], [3, 0], [90, 2]])
def test_images_without_boxes_and_with_more_boxes_than_queries_train(counts: list[int]) -> None:
    model = nano(num_queries=20)
    targets = Targets.from_list(made.targets(counts, num_classes=5))
    losses = Criterion()(model(made.image("images", 2, 64, 64), targets), targets)
    torch.stack(tuple(losses.values())).sum().backward()
    without_gradient = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without_gradient  # a rank without boxes must take part in every all-reduce
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_training_without_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="needs targets"):
        nano()(torch.zeros(1, 3, 64, 64))


def test_evaluation_can_use_fewer_decoder_layers_than_were_trained() -> None:
    images = made.image("images", 1, 64, 64)
    model = nano().eval()
    fewer = nano(num_eval_layers=1).eval()
    fewer.load_state_dict(model.state_dict())
    cut = copy.deepcopy(model)
    cut.decoder.decoder.layers = cut.decoder.decoder.layers[:1]
    cut.decoder.num_eval_layers = 1
    with torch.no_grad():
        torch.testing.assert_close(fewer(images).logits, cut(images).logits)
        assert not torch.allclose(fewer(images).logits, model(images).logits)


@pytest.mark.parametrize("sampling", ["default", "discrete"])
def test_every_level_can_have_its_own_number_of_sampling_points(sampling: str) -> None:
    model = nano(num_points=[2, 4, 6], sampling=sampling)
    attention = model.decoder.decoder.layers[0].cross_attn
    assert attention.num_points_scale.tolist() == pytest.approx([1 / 2] * 2 + [1 / 4] * 4 + [1 / 6] * 6)
    targets = Targets.from_list(made.targets([2], num_classes=5))
    losses = Criterion()(model(made.image("images", 1, 64, 96), targets), targets)
    torch.stack(tuple(losses.values())).sum().backward()
    assert attention.value_proj.weight.grad.abs().sum() > 0
    assert (attention.sampling_offsets.weight.grad is None) == (sampling == "discrete")


def attended(method: str, reference_1Q4: torch.Tensor, feature_map_14hw: torch.Tensor) -> torch.Tensor:
    """Attention whose single point lies at the reference's centre and whose projections change nothing."""
    attention = MultiScaleDeformableAttention(width=4, num_heads=1, num_points=[1], method=method)
    with torch.no_grad():
        for projection in (attention.value_proj, attention.output_proj):
            projection.weight.copy_(torch.eye(4))
        attention.sampling_offsets.bias.zero_()
    size = feature_map_14hw.shape[2:]
    values = attention.values(feature_map_14hw.flatten(2).transpose(1, 2), [(size[0], size[1])])
    return attention(torch.zeros(1, reference_1Q4.shape[1], 4), reference_1Q4, values)


def test_discrete_sampling_reads_the_right_pixel_of_an_image_that_is_not_square() -> None:
    height, width = 2, 6
    feature_map = torch.arange(4 * height * width, dtype=torch.float32).view(1, 4, height, width)
    centres = torch.tensor([[(column + 0.1) / width, (row + 0.1) / height] for row in range(2) for column in range(6)])
    reference = torch.cat([centres, torch.full_like(centres, 0.1)], 1)[None]
    found = attended("discrete", reference, feature_map)
    torch.testing.assert_close(found[0].T.view(4, height, width), feature_map[0])


def test_bilinear_sampling_at_pixel_centres_reads_pixels() -> None:
    feature_map = torch.rand(1, 4, 3, 5)
    centres = torch.tensor([[(column + 0.5) / 5, (row + 0.5) / 3] for row in range(3) for column in range(5)])
    reference = torch.cat([centres, torch.full_like(centres, 0.1)], 1)[None]
    found = attended("default", reference, feature_map)
    torch.testing.assert_close(found[0].T.view(4, 3, 5), feature_map[0])


def test_an_unknown_sampling_method_is_refused() -> None:
    with pytest.raises(ValueError, match="'nearest'"):
        MultiScaleDeformableAttention(width=4, num_heads=1, num_points=[1], method="nearest")


def test_position_embeddings_tell_the_two_axes_apart() -> None:
    positions = sine_cosine_positions(height=3, width=4, dim=8)
    assert positions.shape == (1, 12, 8)
    assert len(torch.unique(positions[0], dim=0)) == 12


@pytest.mark.parametrize(("num_queries", "num_classes"), [(300, 80), (20, 5), (100, 1), (50, 1203)])
def test_detections_are_the_best_pairs_of_query_and_class(num_queries: int, num_classes: int) -> None:
    logits = made.normal("logits", (2, num_queries, num_classes))
    boxes = made.uniform("boxes", (2, num_queries, 4))
    found = detections_from(logits, boxes, torch.tensor([[375, 500], [100, 200]]))
    count = min(300, num_queries * num_classes)
    assert found.scores.shape == (2, count)
    expected = logits[1].sigmoid().flatten().sort(descending=True).values[:count]
    torch.testing.assert_close(found.scores[1], expected)
    best = logits[1].flatten().argmax()
    assert found.labels[1, 0] == best % num_classes
    centre_x, centre_y, width, height = boxes[1, best // num_classes].tolist()
    left, top = (centre_x - width / 2) * 200, (centre_y - height / 2) * 100
    assert found.boxes[1, 0].tolist() == pytest.approx([left, top, left + width * 200, top + height * 100], abs=1e-3)


def test_tensors_cached_in_evaluation_can_be_used_in_training() -> None:
    model, images = nano().eval(), made.image("images", 1, 96, 96)
    with torch.inference_mode():
        model(images)
    targets = Targets.from_list(made.targets([2], num_classes=5))
    losses = Criterion()(model.train()(images, targets), targets)
    torch.stack(tuple(losses.values())).sum().backward()


def test_a_checkpoint_of_another_image_size_loads() -> None:
    large = build(composed("model=nano", "model.image_size=[256,256]"), num_classes=5)
    model = nano()
    model.load_state_dict(large.state_dict())
    assert model.decoder.anchors.shape[1] == 16 * 16 + 8 * 8 + 4 * 4


def test_the_architecture_of_every_model_is_plain_data() -> None:
    architecture = configured_architecture(composed("model=r50vd_m").model)
    plain = json.loads(json.dumps(architecture.to_dict()))
    assert plain["decoder"]["num_eval_layers"] == 3
    assert Architecture.from_dict(plain) == architecture


@pytest.mark.slow
def test_a_frozen_part_is_neither_differentiated_nor_changed() -> None:
    model = small_model(num_denoising=0).train()
    model.freeze(["backbone"])
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    images = torch.rand(2, 3, 64, 64)
    for _ in range(2):
        model.eval()
        model.train()  # as around a validation
        assert not any(feature.requires_grad for feature in model.backbone(images))
        model.encoder(model.backbone(images))[0].sum().backward()
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert any(parameter.grad is not None for parameter in model.encoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())
    assert all(copy.deepcopy(model).train().backbone.state_dict()[name].equal(t) for name, t in before.items())
    norm = next(module for module in model.encoder.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert norm.training


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["backbones"], "did you mean 'backbone'"),
        ([""], "no part ''"),
        (["backbone", "encoder", "decoder"], "nothing to train"),
    ],
)
def test_a_part_that_cannot_be_frozen_is_named(names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        small_model().freeze(names)
