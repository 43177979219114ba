from __future__ import annotations

import pytest

from rtdetrv2_train.errors import UserError
from rtdetrv2_train.training.recipe import PaperRecipe, Recipe


@pytest.mark.parametrize("from_scratch", [True, False])
def test_a_long_run_has_exactly_the_values_of_the_paper(from_scratch: bool) -> None:
    schedule, paper = Recipe().resolve(887_000, from_scratch), PaperRecipe()
    assert schedule.warmup_steps == paper.warmup_steps == 2000
    assert schedule.ema_decay == paper.ema_decay == 0.9999
    assert schedule.ema_ramp_steps == paper.ema_ramp_steps == 2000
    assert schedule.max_gradient_norm == paper.max_gradient_norm == 0.1
    assert schedule.learning_rate_factor == 1
    assert [schedule.learning_rate_share(step) for step in (0, 999, 1999, 500_000)] == [1 / 2000, 0.5, 1, 1]
    assert schedule.ema_decay_at(2000) == pytest.approx(0.9999 * (1 - 2.718281828**-1))


def test_a_run_of_300_steps_warms_up_and_averages_within_its_length() -> None:
    schedule = Recipe().resolve(300, from_scratch=True)
    assert schedule.warmup_steps == 20
    assert 1 / (1 - schedule.ema_decay) < 300 / 4
    assert schedule.ema_decay_at(300) > 0.9 * schedule.ema_decay
    assert schedule.learning_rate_factor > 1
    assert any("warmup_steps = 20" in note for note in schedule.notes)
    assert "300 steps" in schedule.notes[0]


def test_a_short_run_from_pretrained_weights_keeps_learning_rate_and_clipping() -> None:
    schedule = Recipe().resolve(300, from_scratch=False)
    assert schedule.learning_rate_factor == 1
    assert schedule.max_gradient_norm == 0.1


def test_cosine_falls_to_its_share_at_the_last_step() -> None:
    schedule = Recipe(lr_schedule="cosine", warmup_steps=10, final_learning_rate_share=0.1).resolve(110, True)
    assert schedule.learning_rate_share(9) == 1
    assert schedule.learning_rate_share(60) == pytest.approx(0.55)
    assert schedule.learning_rate_share(110) == pytest.approx(0.1)


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
    with pytest.raises(UserError, match=r"recipe\.lr_scaling is 'square'"):
        Recipe(lr_scaling="square")
    with pytest.raises(UserError, match=r"recipe\.warmup_steps is 'often'"):
        Recipe(warmup_steps="often")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"recipe\.ema_decay is -1"):
        Recipe(ema_decay=-1)
