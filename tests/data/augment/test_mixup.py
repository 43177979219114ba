from __future__ import annotations

import numpy as np
import pytest

from rtdetrv2_train.data.augment.mixup import ALONE, MixUp, blended
from rtdetrv2_train.data.augment.pipeline import TrainingPipeline
from rtdetrv2_train.errors import UserError


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_each_image_is_blended_with_the_one_before_it(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 8, channels), dtype=np.uint8)
    result = blended(list(images), 0.47)
    assert result.dtype == np.uint8
    exact = 0.47 * images + 0.53 * np.roll(images, 1, axis=0)
    np.testing.assert_allclose(result, exact, atol=0.51)
    mirrored = blended([image[:, ::-1] for image in images], 0.47)
    np.testing.assert_array_equal(mirrored, result[:, :, ::-1])


def test_draws_have_the_published_distribution() -> None:
    random, mixup = np.random.default_rng(0), MixUp()
    shares = np.array([mixup.draw(random) for _ in range(4000)])
    mixed = shares[shares != ALONE]
    assert len(mixed) == pytest.approx(2000, abs=130)
    assert 0.45 <= mixed.min() < 0.451
    assert 0.549 < mixed.max() <= 0.55
    assert mixed.mean() == pytest.approx(0.5, abs=0.003)
    assert {MixUp(p=0.0).draw(random) for _ in range(20)} == {ALONE}


def test_nonsense_is_refused() -> None:
    with pytest.raises(UserError, match=r"transforms\.mixup\.share is \[0\.5, 1\.5\]"):
        MixUp(share=(0.5, 1.5))
    with pytest.raises(UserError, match=r"transforms\.mixup\.p is -1"):
        MixUp(p=-1)
    with pytest.raises(UserError, match=r"transforms\.blend is a MixUp: call it mixup"):
        TrainingPipeline({"blend": MixUp()})
