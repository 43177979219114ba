from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.counting import OperationCounter
from rtdetrv2_train.boxes import cxcywh_to_xyxy, overlap
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.loss.criterion import Criterion
from rtdetrv2_train.model.output import ModelOutput
from rtdetrv2_train.ops.mal import mal_loss_reference
from rtdetrv2_train.ops.varifocal import varifocal_loss, varifocal_loss_reference
from rtdetrv2_train.types import StepTotals, Targets
from tests.support import build, composed, made

KINDS = ("vfl", "bbox", "giou")


def step(counts: list[int], num_layers: int = 3) -> tuple[nn.Module, ModelOutput, Targets]:
    torch.manual_seed(0)
    model = build(composed("model=nano"), num_classes=5, num_layers=num_layers)
    targets = Targets.from_list(made.targets(counts, num_classes=5))
    return model, model(made.image("images", len(counts), 64, 64), targets), targets


def test_terms_have_the_names_of_the_reference() -> None:
    _, output, targets = step([2, 1])
    expected = {f"loss_{kind}{suffix}" for kind in KINDS for suffix in ("", "_aux_0", "_aux_1", "_enc_0")}
    expected |= {f"loss_{kind}_dn_{layer}" for kind in KINDS for layer in range(3)}
    assert set(Criterion()(output, targets)) == expected


def test_a_perfect_prediction_has_no_box_loss_and_little_classification_loss() -> None:
    targets = Targets.from_list([{"boxes": [[0.5, 0.5, 0.2, 0.4], [0.2, 0.3, 0.1, 0.1]], "labels": [0, 2]}])
    boxes = torch.cat([targets.boxes, torch.full((3, 4), 0.05)])[None, None]
    logits = torch.full((1, 1, 5, 3), -12.0)
    logits[0, 0, 0, 0] = logits[0, 0, 1, 2] = 12.0
    losses = Criterion()(ModelOutput(logits, boxes, logits[0], boxes[0]), targets)
    assert losses["loss_bbox"].item() == pytest.approx(0, abs=1e-6)
    assert losses["loss_giou"].item() == pytest.approx(0, abs=1e-5)
    assert losses["loss_vfl"].item() < 1e-3


def test_varifocal_loss_is_least_where_the_score_is_the_iou() -> None:
    targets = Targets.from_list([{"boxes": [[0.5, 0.5, 0.4, 0.4]], "labels": [0]}])
    boxes = torch.tensor([[[[0.5, 0.5, 0.4, 0.2]]]])  # half of it: IoU 0.5
    logits = torch.zeros(1, 1, 1, 1, requires_grad=True)
    losses = Criterion()(ModelOutput(logits, boxes, logits[0], boxes[0]), targets)
    losses["loss_vfl"].backward()
    assert logits.grad.item() == pytest.approx(0, abs=1e-6)  # the IoU is 0.5, and so is the score


def test_varifocal_loss_and_its_gradient_are_exact_for_any_logit() -> None:
    logits = torch.linspace(-60, 60, 48, dtype=torch.float64).view(2, 2, 3, 4)
    at = (torch.tensor([[0], [1]]), torch.tensor([1]), torch.tensor([[2], [0]]), torch.tensor([3]))
    iou = torch.tensor([[0.7], [0.2]], dtype=torch.float64)
    results = []
    for function in (varifocal_loss_reference, varifocal_loss):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf, at, iou, 0.75, 2.0)
        (loss * torch.tensor([1.0, 3.0])).sum().backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


def test_mal_takes_the_place_of_varifocal_loss_in_every_set_and_changes_nothing_else() -> None:
    _, output, targets = step([2, 1])
    varifocal = Criterion()(output, targets)
    mal = Criterion(classification="mal", gamma=1.5)(output, targets)
    assert set(mal) == {name.replace("vfl", "mal") for name in varifocal}
    for name, term in varifocal.items():
        if "vfl" not in name:
            assert torch.equal(mal[name], term)
    for suffix in ("", "_aux_0", "_aux_1", "_enc_0", "_dn_0", "_dn_1", "_dn_2"):
        assert mal[f"loss_mal{suffix}"] != varifocal[f"loss_vfl{suffix}"]


def test_mal_is_divided_by_the_number_of_boxes_and_of_denoising_groups() -> None:
    _, output, targets = step([2, 1])
    assert output.denoising is not None
    logits, layout = output.denoising.logits.detach(), output.denoising.layout
    query, target = layout.positive_queries(targets), layout.chosen(targets)[0]
    number = torch.arange(len(logits))[:, None]
    pairs = (target.expand_as(query)).reshape(1, -1)
    at = (number, targets.image_index[pairs], query.reshape(1, -1), targets.labels[pairs])
    boxes = output.denoising.boxes.detach()[at[:3]]
    iou = overlap(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets.boxes[pairs]))[0]
    expected = mal_loss_reference(logits, at, iou, 1.5) / (3 * layout.num_groups)
    found = Criterion(classification="mal", gamma=1.5)(output, targets)
    torch.testing.assert_close(torch.stack([found[f"loss_mal_dn_{layer}"] for layer in range(3)]), expected)


def test_an_unknown_classification_loss_is_named() -> None:
    with pytest.raises(UserError, match=r"model\.criterion\.classification is 'focal': use varifocal or mal"):
        Criterion(classification="focal")


def test_evaluation_output_is_refused() -> None:
    output = ModelOutput(torch.zeros(1, 3, 2), torch.zeros(1, 3, 4))
    with pytest.raises(ValueError, match="training mode"):
        Criterion()(output, Targets.from_list(made.targets([1])))


def counted(counts: list[int], num_layers: int) -> OperationCounter:
    _, output, targets = step(counts, num_layers)
    with OperationCounter() as counter:
        Criterion()(output, targets)
    return counter


def test_number_of_operations_does_not_depend_on_layers_or_images() -> None:
    few, many = counted([3, 1], 2), counted([3, 1, 0, 9, 2, 5], 6)
    assert few.operations == many.operations
    assert many.operations <= 350
    assert many.reads == 0  # the costs cross to the host in one copy, and nothing else is read


def test_losses_are_divided_by_the_boxes_of_the_optimizer_step_without_communication(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, output, targets = step([2, 1])
    expected = Criterion()(output, targets)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_: pytest.fail("communicated with other ranks"))
    found = Criterion()(output, replace(targets, step=StepTotals(boxes_per_batch=6.0, most_boxes=2)))
    assert found.keys() == expected.keys()
    for name, term in found.items():
        torch.testing.assert_close(term, expected[name] / 2)
