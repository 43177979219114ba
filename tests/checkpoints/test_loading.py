"""Weights land where they belong, class by class, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rtdetrv2_train.checkpoints.checkpoint import Checkpoint, make_checkpoint
from rtdetrv2_train.checkpoints.loading import load_weights
from rtdetrv2_train.classes import COCO, Classes, match_classes
from rtdetrv2_train.errors import UserError
from tests.support import small_model

HEADS = {
    "decoder.denoising_class_embed.weight",
    "decoder.enc_score_head.weight",
    "decoder.enc_score_head.bias",
    *(f"decoder.dec_score_head.{layer}.{part}" for layer in range(3) for part in ("weight", "bias")),
}


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_same_model_takes_over_every_tensor_and_predicts_the_same(tmp_path: Path) -> None:
    source, model = small_model(seed=1), small_model(seed=2)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(source(images).logits, model(images).logits)
        report = load_weights(model, tmp_path / "weights.pth")
        assert torch.equal(source(images).logits, model(images).logits)
        assert torch.equal(source(images).boxes, model(images).boxes)
    assert (report.missing, report.unexpected, report.reinitialised, report.copied_rows) == ((), (), (), ())
    computed = [name for name in model.state_dict() if name.endswith(("anchors", "valid_mask", "num_points_scale"))]
    assert report.loaded == len(model.state_dict()) - len(computed)
    assert report.summary() == [f"loaded {report.loaded} tensors from {tmp_path / 'weights.pth'}"]


def test_computed_entries_and_counters_are_ignored_whatever_they_are() -> None:
    source, model = copy_of(small_model(seed=1)), small_model(seed=2)
    source["decoder.anchors"] = torch.zeros(1, 7, 4)
    del source["decoder.valid_mask"]
    source = {name: tensor for name, tensor in source.items() if not name.endswith("num_batches_tracked")}
    source["backbone.conv1.conv1_1.norm.extra.num_batches_tracked"] = torch.tensor(1)
    anchors = model.state_dict()["decoder.anchors"].clone()
    report = load_weights(model, source)
    assert (report.missing, report.unexpected) == ((), ())
    assert torch.equal(model.state_dict()["decoder.anchors"], anchors)
    assert model.state_dict()["backbone.conv1.conv1_1.norm.num_batches_tracked"] == 17


def test_another_number_of_classes_keeps_everything_but_the_class_heads() -> None:
    source, model = small_model(num_classes=6, seed=1), small_model(num_classes=4, seed=2)
    before = copy_of(model)
    report = load_weights(model, source.state_dict())
    after = model.state_dict()
    assert set(report.reinitialised) == HEADS
    assert all(torch.equal(after[name][:4], before[name][:4]) for name in HEADS)
    given = source.state_dict()
    other = [n for n in given if n not in HEADS and "anchors" not in n and "valid_mask" not in n]
    assert all(torch.equal(after[name], given[name]) for name in other)
    assert report.summary()[1] == (
        "class heads: 0 of 4 classes found by name among the checkpoint's 6 (none); "
        "the others keep their initial weights"
    )


def named(model: nn.Module, names: list[str]) -> Checkpoint:
    return make_checkpoint(model.state_dict(), "elsewhere", "state_dict", class_names=names)


def test_rows_of_classes_with_known_names_are_copied() -> None:
    source, model = small_model(num_classes=3, seed=1), small_model(num_classes=4, seed=2)
    before = copy_of(model)
    report = load_weights(model, named(source, ["dog", "Cat", "plane"]), ["cat", "zebra", "DOG ", "bird"])
    assert report.copied_rows == ("cat", "DOG ")
    assert set(report.reinitialised) == HEADS
    given, after = source.state_dict(), model.state_dict()
    for name in HEADS:
        assert torch.equal(after[name][0], given[name][1]), name
        assert torch.equal(after[name][2], given[name][0]), name
        assert torch.equal(after[name][1], before[name][1]), name
        assert torch.equal(after[name][3], before[name][3]), name
    embedding = "decoder.denoising_class_embed.weight"
    assert torch.equal(after[embedding][4], given[embedding][3])  # the row that stands for no class
    assert "2 of 4 classes found by name among the checkpoint's 3 (cat, DOG )" in report.summary()[1]


def test_the_same_classes_in_another_order_are_reordered() -> None:
    source, model = small_model(num_classes=3, seed=1), small_model(num_classes=3, seed=2)
    report = load_weights(model, named(source, ["a", "b", "c"]), ["c", "a", "b"])
    assert report.copied_rows == ("c", "a", "b")
    assert report.reinitialised == ()
    given, after = source.state_dict(), model.state_dict()
    for name in HEADS:
        assert torch.equal(after[name][:3], given[name][[2, 0, 1]])


def test_the_same_classes_in_the_same_order_are_loaded_as_they_are() -> None:
    source, model = small_model(num_classes=2, seed=1), small_model(num_classes=2, seed=2)
    report = load_weights(model, named(source, ["A", "b"]), ["a", "B"])
    assert (report.copied_rows, report.reinitialised) == ((), ())
    assert all(torch.equal(model.state_dict()[name], source.state_dict()[name]) for name in HEADS)


@pytest.mark.parametrize("names", [["A", "a"], ["a", "a", "b"], ["a ", "a"]], ids=["case", "one name", "blank"])
def test_classes_whose_names_hardly_differ_keep_their_own_rows(names: list[str]) -> None:
    source, model = small_model(num_classes=len(names), seed=1), small_model(num_classes=len(names), seed=2)
    assert load_weights(model, named(source, names), names).copied_rows == ()
    assert all(torch.equal(model.state_dict()[name], source.state_dict()[name]) for name in HEADS)
    swapped = names[::-1]
    load_weights(model, named(source, names), swapped)
    head = "decoder.enc_score_head.weight"
    expected = match_classes(swapped, names)
    assert torch.equal(model.state_dict()[head], source.state_dict()[head][expected])


def test_weights_without_names_say_that_rows_are_taken_in_order_and_there_is_a_choice() -> None:
    source, names = small_model(num_classes=3, seed=1), ["a", "b", "c"]
    head = "decoder.enc_score_head.weight"
    for choice, taken in (("auto", True), ("by_position", True), ("new", False)):
        model = small_model(num_classes=3, seed=2)
        report = load_weights(model, source.state_dict(), names, choice)
        assert torch.equal(model.state_dict()[head], source.state_dict()[head]) is taken
        said = "the checkpoint does not name its 3 classes" in "".join(report.summary())
        assert said is (choice == "auto")
    model = small_model(num_classes=3, seed=2)
    load_weights(model, named(source, ["x", "y", "z"]), names, "by_position")
    assert torch.equal(model.state_dict()[head], source.state_dict()[head])
    with pytest.raises(UserError, match="has 3 classes, not 4: their rows do not fit, so use init_classes=auto"):
        load_weights(small_model(num_classes=4), source.state_dict(), ["a", "b", "c", "d"], "by_position")
    with pytest.raises(UserError, match="no init_classes=position: did you mean 'by_position'"):
        load_weights(model, source.state_dict(), names, "position")  # type: ignore[arg-type]


def test_weights_of_eighty_classes_without_names_are_taken_for_those_of_coco() -> None:
    source, model = small_model(num_classes=80, seed=1), small_model(num_classes=2, seed=2)
    report = load_weights(model, source.state_dict(), ["sofa", "Person"])
    assert report.copied_rows == ("sofa", "Person")
    head = "decoder.enc_score_head.weight"
    assert torch.equal(model.state_dict()[head], source.state_dict()[head][[57, 0]])
    eighty = small_model(num_classes=80, seed=2)
    report = load_weights(eighty, source.state_dict(), ["person", *(f"part {number}" for number in range(79))])
    assert report.by_position, "a set of 80 others may well be what they were trained on"


def test_a_few_missing_or_left_over_entries_are_reported() -> None:
    source, model = copy_of(small_model(seed=1)), small_model(num_denoising=0, seed=2)
    del source["decoder.enc_output.proj.bias"]
    report = load_weights(model, source)
    assert report.missing == ("decoder.enc_output.proj.bias",)
    assert report.unexpected == ("decoder.denoising_class_embed.weight",)
    assert report.summary()[1:] == [
        "1 not in the checkpoint, left as initialised: decoder.enc_output.proj.bias",
        "1 in the checkpoint but not in the model: decoder.denoising_class_embed.weight",
    ]


def test_a_model_with_fewer_decoder_layers_takes_the_first_ones() -> None:
    source, model = small_model(num_layers=3, seed=1), small_model(num_layers=2, seed=2)
    report = load_weights(model, source.state_dict())
    assert report.missing == ()
    assert len(report.unexpected) > 20
    assert all(".2." in name for name in report.unexpected)
    last = "decoder.dec_score_head.1.weight"
    assert torch.equal(model.state_dict()[last], source.state_dict()[last])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            small_model(width=64),
            r"'decoder\.input_proj\.0\.conv\.weight' is \[32, 64, 1, 1\] there and \[32, 32, 1, 1\] here",
        ),
        (small_model(blocks=(2, 1, 1, 1)), "it has 10 entries more, such as 'backbone.res_layers.0.blocks.1"),
        (small_model(num_layers=2), "it lacks .* entries, such as 'decoder.decoder.layers.2"),
        (small_model(num_points=(2, 4, 6)), r"\[2, 4, 6\] sampling points there and \[4, 4, 4\] here"),
    ],
    ids=["width", "blocks", "layers", "points"],
)
def test_another_architecture_is_refused_and_the_model_untouched(source: nn.Module, reason: str) -> None:
    model = small_model(seed=2)
    before = copy_of(model)
    with pytest.raises(UserError, match=reason) as caught:
        load_weights(model, source.state_dict())
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_error_names_the_published_model_and_how_to_choose_it(
    hollow_weights: Callable[[str], dict[str, Tensor]],
) -> None:
    expected = (
        r"'a state dict' looks like r50vd_m, but this model looks like an unknown model .* encoder width 32.*: "
        r"set model=r50vd_m, or give a checkpoint of this model"
    )
    with pytest.raises(UserError, match=expected):
        load_weights(small_model(), hollow_weights("r50vd_m"))


def test_the_classes_of_weights_are_those_of_their_names_or_else_of_the_annotations() -> None:
    weights = small_model(num_classes=3)
    file = Classes(("b", "a", "c"), (2, 4, 8), "val.json")
    assert named(weights, ["a", "b", "x"]).classes_beside(file) == Classes(("a", "b", "x"), (1, 2, 3), "elsewhere")
    nameless = make_checkpoint(weights.state_dict(), "elsewhere", "authors")
    assert nameless.classes_beside(file) == file
    assert nameless.classes_beside(file, ["x", "y", "z"]).names == ("x", "y", "z")
    with pytest.raises(UserError, match=r"has 3 classes, but class_names= has 2, and 'val\.json' has 3"):
        nameless.classes_beside(file, ["x", "y"])
    of_coco = make_checkpoint(small_model(num_classes=80).state_dict(), "elsewhere", "authors")
    assert of_coco.classes_beside(Classes(("person",), (7,), "people.json")).ids == tuple(COCO)


def test_class_names_must_fit_the_model() -> None:
    with pytest.raises(ValueError, match="3 class names were given for a model of 4 classes"):
        load_weights(small_model(num_classes=4), small_model(num_classes=4).state_dict(), ["a", "b", "c"])
