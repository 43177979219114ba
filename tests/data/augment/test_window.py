from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.augment.window import Window
from rtdetrv2_train.data.images.decode import ImageArray, StoredImage

HEIGHT, WIDTH = 203, 301
BOX = np.array([[100.0, 60.0, 180.0, 120.0]])


def marked() -> ImageArray:
    """Grey, with BOX in red."""
    image = np.full((HEIGHT, WIDTH, 3), 90, dtype=np.uint8)
    image[60:120, 100:180] = (250, 20, 20)
    return image


def as_jpeg(image: ImageArray, path: str) -> StoredImage:
    Image.fromarray(image).save(path, quality=95, subsampling=0)
    return StoredImage.read(path)  # type: ignore[arg-type]


def extent(image: ImageArray) -> NDArray[np.float64]:
    """Corners of what is more red than grey."""
    rows, columns = np.nonzero(image[..., 0].astype(int) - image[..., 1] > 115)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=float)


WINDOWS = {
    "as it is": Window.whole(HEIGHT, WIDTH),
    "mirrored": Window.whole(HEIGHT, WIDTH).flipped(),
    "cropped": Window.whole(HEIGHT, WIDTH).framed((87, 31, 250, 149)),
    "on a canvas": Window.whole(HEIGHT, WIDTH).framed((-211, -97, 611, 457), (7, 8, 9)),
    "on a large canvas": Window.whole(HEIGHT, WIDTH).framed((-501, -297, 911, 757), (7, 8, 9)).flipped(),
    "cropped on a canvas": Window.whole(HEIGHT, WIDTH)
    .framed((-211, -97, 611, 457), (7, 8, 9))
    .framed((91, -60, 400, 133))
    .flipped(),
}


@pytest.mark.parametrize("size", [(96, 160), (320, 256), (40, 56)])
@pytest.mark.parametrize("stored", ["pixels", "jpeg"])
@pytest.mark.parametrize("name", list(WINDOWS))
def test_boxes_follow_the_pixels(name: str, stored: str, size: tuple[int, int], tmp_path: object) -> None:
    image = StoredImage.of_pixels(marked()) if stored == "pixels" else as_jpeg(marked(), f"{tmp_path}/image.jpg")
    window = WINDOWS[name]
    cut = BOX.clip(window.content[:2] * 2, window.content[2:] * 2)
    pixels, boxes = window.render(image, cut, size)
    assert pixels.shape == (*size, 3)
    # Where an edge lies within a pixel, the pixel is counted or not.
    np.testing.assert_allclose(boxes[0], extent(pixels), atol=1.01 if min(size) == 40 else 0.76)


def test_the_frame_maps_onto_the_sample() -> None:
    """The true corners of the box, up to the rounding of the image's edges to whole pixels."""
    for window in WINDOWS.values():
        cut = BOX.clip(window.content[:2] * 2, window.content[2:] * 2)
        _, boxes = window.render(StoredImage.of_pixels(marked()), cut, (640, 480))
        left, top = window.frame[:2]
        expected = (cut[0] - [left, top] * 2) * ([480 / window.width, 640 / window.height] * 2)
        if window.mirrored:
            expected[[0, 2]] = 480 - expected[[2, 0]]
        np.testing.assert_allclose(boxes[0], expected, atol=0.51)


def test_the_plain_part_of_a_frame_is_filled() -> None:
    pixels, _ = WINDOWS["on a canvas"].render(StoredImage.of_pixels(marked()), BOX, (554, 822))
    outside = np.ones(pixels.shape[:2], dtype=bool)
    outside[97 : 97 + HEIGHT, 211 : 211 + WIDTH] = False
    assert (pixels[outside] == [7, 8, 9]).all()
    np.testing.assert_array_equal(pixels[97 : 97 + HEIGHT, 211 : 211 + WIDTH], marked())


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_jpeg_decoded_smaller_is_the_average_of_its_pixels(shrink: int, tmp_path: object) -> None:
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    image = as_jpeg(np.asarray(smooth.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)), f"{tmp_path}/image.jpg")
    whole, by = image.decode()
    assert by == 1
    small, by = image.decode(shrink)
    assert by == shrink
    rows, columns = HEIGHT // shrink, WIDTH // shrink
    assert small.shape == (-(-HEIGHT // shrink), -(-WIDTH // shrink), 3)
    blocks = whole[: rows * shrink, : columns * shrink].reshape(rows, shrink, columns, shrink, 3)
    assert np.abs(blocks.mean(axis=(1, 3)) - small[:rows, :columns]).mean() < 1


def test_a_jpeg_is_never_decoded_smaller_than_the_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    image = as_jpeg(marked(), f"{tmp_path}/image.jpg")
    asked = []
    decode = StoredImage.decode
    monkeypatch.setattr(StoredImage, "decode", lambda self, by=1: (asked.append(by), decode(self, by))[1])
    for size in ((203, 301), (101, 150), (102, 150), (25, 37), (203, 37)):
        Window.whole(HEIGHT, WIDTH).render(image, BOX, size)
    assert asked == [1, 2, 1, 8, 1]


def test_grey_jpegs_are_decoded_smaller_too() -> None:
    stream = io.BytesIO()
    Image.new("L", (64, 48), 77).save(stream, "JPEG")
    image = StoredImage(48, 64, stream.getvalue(), None)
    assert (image.decode(4)[0] == 77).all()
    assert image.decode(4)[0].shape == (12, 16, 3)
