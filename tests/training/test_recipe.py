from __future__ import annotations

import pytest

from rtdetrv2_train.data.augment.schedule import AugmentationSchedule
from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.recipe import PaperRecipe, Recipe, scaled_epoch


@pytest.mark.parametrize("from_scratch", [True, False])
def test_a_long_run_has_exactly_the_values_of_the_paper(from_scratch: bool) -> None:
    schedule, paper = Recipe().resolve(887_000, from_scratch), PaperRecipe()
    assert schedule.warmup_steps == paper.warmup_steps == 2000
    assert schedule.ema_decay == paper.ema_decay == 0.9999
    assert schedule.ema_ramp_steps == paper.ema_ramp_steps == 2000
    assert schedule.max_gradient_norm == paper.max_gradient_norm == 0.1
    assert schedule.learning_rate_factor == 1
    assert schedule.optimizer == "adamw"
    assert [schedule.learning_rate_share(step) for step in (0, 999, 1999, 500_000)] == [1 / 2000, 0.5, 1, 1]
    assert schedule.ema_decay_at(2000) == pytest.approx(0.9999 * (1 - 2.718281828**-1))


def test_a_run_of_300_steps_warms_up_and_averages_within_its_length() -> None:
    schedule = Recipe().resolve(300, from_scratch=True)
    assert schedule.warmup_steps == 20
    assert 1 / (1 - schedule.ema_decay) < 300 / 4
    assert schedule.ema_decay_at(300) > 0.9 * schedule.ema_decay
    assert schedule.learning_rate_factor > 1
    assert schedule.optimizer == "muon"
    assert any("warmup_steps = 20" in note for note in schedule.notes)
    assert "300 steps" in schedule.notes[0]


def test_a_short_run_from_pretrained_weights_keeps_learning_rate_and_clipping() -> None:
    schedule = Recipe().resolve(300, from_scratch=False)
    assert schedule.learning_rate_factor == 1
    assert schedule.max_gradient_norm == 0.1
    assert schedule.optimizer == "adamw"


@pytest.mark.parametrize("batch", [16, 8])
@pytest.mark.parametrize("rate", [1e-4, 2.5e-4])
def test_muon_has_its_own_learning_rate_which_follows_the_batch_size_alone(batch: int, rate: float) -> None:
    recipe = Recipe(learning_rate=rate, muon_learning_rate=2e-3, total_batch_size=batch)
    schedule = recipe.resolve(300, from_scratch=True)
    rate_of_adamw = rate * schedule.learning_rate_factor
    assert rate_of_adamw * recipe.muon_factor(schedule) == pytest.approx(2e-3 * (batch / 16) ** 0.5)


def test_cosine_falls_to_its_share_at_the_last_step() -> None:
    schedule = Recipe(lr_schedule="cosine", warmup_steps=10, final_learning_rate_share=0.1).resolve(110, True)
    assert schedule.learning_rate_share(9) == 1
    assert schedule.learning_rate_share(60) == pytest.approx(0.55)
    assert schedule.learning_rate_share(110) == pytest.approx(0.1)


def test_flat_cosine_rises_as_a_square_is_flat_and_falls_to_its_share() -> None:
    recipe = Recipe(
        lr_schedule="flat_cosine", warmup_steps=10, final_learning_rate_share=0.5, flat_until_epoch=3,
        cosine_until_epoch=8, reference_epochs=10,
    )  # fmt: skip
    schedule = recipe.resolve(200, False, steps_per_epoch=20)
    rising = [schedule.learning_rate_share(step) for step in (0, 4, 9, 10, 59)]
    assert rising == pytest.approx([0.01, 0.25, 1, 1, 1])
    assert schedule.learning_rate_share(109) == pytest.approx(0.75)
    assert [schedule.learning_rate_share(step) for step in (159, 160, 199, 500)] == [0.5] * 4


@pytest.mark.parametrize("reference", [10, 60, 72, 120])
def test_epochs_of_the_rate_scale_as_those_of_the_augmentation(reference: int) -> None:
    for epoch in range(1, reference, 7):
        for epochs in range(1, 2 * reference, 5):
            schedule = AugmentationSchedule({"flip": {"start": epoch}}, reference, epochs)
            first = next(e for e in range(2 * epochs + 1) if schedule.active("flip", e))
            assert scaled_epoch(epoch, reference, epochs) == first


def test_the_cosine_begins_after_half_of_the_epochs_and_4_more_but_not_after_its_end() -> None:
    recipe = Recipe(lr_schedule="flat_cosine", reference_epochs=60, cosine_until_epoch=58)
    assert recipe.resolve(6000, False, 100).cosine_steps == (3400, 5800)
    assert recipe.resolve(6000, False).cosine_steps == (3400, 5800)
    short = Recipe(lr_schedule="flat_cosine", reference_epochs=10, cosine_until_epoch=8)
    assert short.resolve(1000, False, 100).cosine_steps == (800, 800)
    assert [short.resolve(1000, False, 100).learning_rate_share(step) for step in (799, 800)] == [1, 0.01]


def test_a_run_of_so_many_steps_has_whole_epochs_and_a_part_of_one() -> None:
    recipe = Recipe(lr_schedule="flat_cosine", reference_epochs=4, flat_until_epoch=2, cosine_until_epoch=3)
    assert recipe.resolve(350, False, steps_per_epoch=100).cosine_steps == (200, 300)


def test_epochs_that_do_not_fit_are_named() -> None:
    with pytest.raises(UserError, match=r"recipe\.cosine_until_epoch is 71: give a whole number from 0 to 60"):
        Recipe(lr_schedule="flat_cosine", reference_epochs=60, cosine_until_epoch=71)
    with pytest.raises(UserError, match=r"recipe\.flat_until_epoch is 59: give a whole number from 0 to 58, or auto"):
        Recipe(lr_schedule="flat_cosine", reference_epochs=60, cosine_until_epoch=58, flat_until_epoch=59)
    Recipe(reference_epochs=60, cosine_until_epoch=71)  # which nothing reads


def test_what_is_set_is_kept_and_not_announced() -> None:
    schedule = Recipe(warmup_steps=7, ema_decay=0.5).resolve(100, from_scratch=True)
    assert (schedule.warmup_steps, schedule.ema_decay) == (7, 0.5)
    assert not any("warmup_steps" in note or "ema_decay" in note for note in schedule.notes)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_runs_of_a_few_steps_are_resolved_too(steps: int) -> None:
    schedule = Recipe().resolve(steps, from_scratch=True)
    assert schedule.warmup_steps >= 1
    assert 0 <= schedule.ema_decay_at(1) < 1


@pytest.mark.parametrize(("rule", "factor"), [("sqrt", 2), ("linear", 4), ("none", 1)])
def test_learning_rates_follow_the_total_batch_size_by_the_chosen_rule(rule: str, factor: float) -> None:
    recipe = Recipe(total_batch_size=64, lr_scaling=rule, learning_rate_factor=3.0)
    schedule = recipe.resolve(887_000, from_scratch=False)
    assert schedule.learning_rate_factor == 3 * factor
    assert f"learning rates times {factor} (recipe.lr_scaling={rule}): 64 images" in schedule.notes[-1]


def test_with_the_batch_size_that_they_are_meant_for_learning_rates_stay() -> None:
    schedule = Recipe(total_batch_size=8, reference_batch_size=8, lr_scaling="linear").resolve(300, from_scratch=False)
    assert schedule.learning_rate_factor == 1
    assert not any("images a step" in note for note in schedule.notes)


def test_senseless_values_are_named() -> None:
    with pytest.raises(UserError, match=r"recipe\.lr_schedule is 'linear'"):
        Recipe(lr_schedule="linear")
    with pytest.raises(UserError, match=r"recipe\.optimizer is 'sgd': use adamw, muon or auto"):
        Recipe(optimizer="sgd")
    with pytest.raises(UserError, match=r"recipe\.lr_scaling is 'square'"):
        Recipe(lr_scaling="square")
    with pytest.raises(UserError, match=r"recipe\.warmup_steps is 'often'"):
        Recipe(warmup_steps="often")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"recipe\.ema_decay is -1"):
        Recipe(ema_decay=-1)
