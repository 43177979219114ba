from __future__ import annotations

import numpy as np
from PIL import Image

from rtdetrv2_train.data.images.resize import resize_for_evaluation, resize_for_training

GREY = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
COLOUR = np.stack([GREY, GREY[:, ::-1], np.full_like(GREY, 90)], axis=2)


def test_evaluation_resizes_bit_by_bit_as_pillow_does() -> None:
    expected = np.asarray(Image.fromarray(COLOUR).resize((96, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_for_evaluation(COLOUR, 32, 96), expected)


def test_training_resizes_each_side_without_aliasing() -> None:
    stripes = np.zeros((40, 60, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    # Width halves, height doubles: every second column must be averaged, not dropped.
    resized = resize_for_training(stripes, 80, 30)
    assert resized.shape == (80, 30, 3)
    assert (resized == 100).all()
    np.testing.assert_array_equal(resize_for_training(stripes, 40, 60), stripes)
