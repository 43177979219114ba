"""Images of other channels than red, green and blue: reading, resizing, caching and changing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.images.decode import (
    Reading,
    StoredImage,
    UnreadableImageError,
    deep_range,
    read_header,
    read_image,
    turned,
)
from rtdetrv2_train.data.images.resize import evaluation_input, resize_for_evaluation, resize_for_training

CHANNELS = (1, 2, 4, 5, 8, 13, 16)


def noise(channels: int, size: tuple[int, int] = (37, 53)) -> NDArray[np.uint8]:
    return np.random.default_rng(channels).integers(0, 256, (*size, channels), dtype=np.uint8)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 13, 16])
def test_tiffs_of_any_number_of_bands(
    tmp_path: Path, channels: int, kind: type, planar: bool, compression: str | None
) -> None:
    image = noise(channels)
    values = image.astype(kind) * kind(257) if kind is np.uint16 else (image / 255 if kind is np.float32 else image)
    stored = np.moveaxis(values, 2, 0) if planar else values
    tifffile.imwrite(
        tmp_path / "image.tif",
        np.ascontiguousarray(stored.astype(kind)) if channels > 1 else values[..., 0].astype(kind),
        photometric="minisblack",
        planarconfig=("separate" if planar else "contig") if channels > 1 else None,
        compression=compression,
    )
    reading = Reading(channels=channels)
    np.testing.assert_array_equal(read_image(tmp_path / "image.tif", reading), image)
    header = read_header(tmp_path / "image.tif", channels)
    assert (*header[:2], header.bands, header.deep) == (37, 53, channels, kind is not np.uint8)


def test_a_tiff_of_rgb_and_a_band_more_keeps_it(tmp_path: Path) -> None:
    """Pillow shows red, green and blue, or takes the fourth for alpha."""
    image = noise(4)
    for extra in ("unspecified", "unassalpha", "assocalpha"):
        tifffile.imwrite(tmp_path / "image.tif", image, photometric="rgb", extrasamples=[extra])
        np.testing.assert_array_equal(read_image(tmp_path / "image.tif", Reading(channels=4)), image)


def test_pages_of_one_band_are_bands_where_as_many_are_wanted(tmp_path: Path) -> None:
    image = noise(4)
    tifffile.imwrite(tmp_path / "pages.tif", np.ascontiguousarray(np.moveaxis(image, 2, 0)), photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "pages.tif", Reading(channels=4)), image)
    assert read_header(tmp_path / "pages.tif", 4).bands == 4
    for channels in (3, 5):
        with pytest.raises(UnreadableImageError, match="it has 4 pages"):
            read_image(tmp_path / "pages.tif", Reading(channels=channels))


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_arrays_of_numpy(tmp_path: Path, kind: type) -> None:
    image = noise(5) if kind is not bool else np.where(noise(5) > 127, 255, 0).astype(np.uint8)
    values = image > 127 if kind is bool else image.astype(kind) * (10 if kind is not np.uint8 else 1)
    np.save(tmp_path / "image.npy", values)
    limits = (0.0, 2550.0) if kind not in (bool, np.uint8) else None
    np.testing.assert_array_equal(read_image(tmp_path / "image.npy", Reading(pixel_range=limits, channels=5)), image)
    header = read_header(tmp_path / "image.npy", 5)
    assert (*header[:2], header.bands, header.deep) == (37, 53, 5, kind not in (bool, np.uint8))
    if limits:
        low, high = deep_range(tmp_path / "image.npy", (0, 100), 5)
        assert (low, high) == (values.min(), values.max())
    np.save(tmp_path / "grey.npy", values[..., 0])
    pixels = read_image(tmp_path / "grey.npy", Reading(pixel_range=limits, channels=1))
    np.testing.assert_array_equal(pixels, image[..., :1])


def test_arrays_of_three_bands_are_rgb(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", noise(3))
    np.testing.assert_array_equal(read_image(tmp_path / "image.npy"), noise(3))
    assert read_header(tmp_path / "image.npy")[:2] == (37, 53)


@pytest.mark.parametrize("deep", [False, True])
def test_the_alpha_of_a_png_is_a_band(tmp_path: Path, deep: bool) -> None:
    image = noise(4)
    cv2.imwrite(
        str(tmp_path / "image.png"),
        image[..., [2, 1, 0, 3]].astype(np.uint16) * 257 if deep else image[..., [2, 1, 0, 3]],
    )
    np.testing.assert_array_equal(read_image(tmp_path / "image.png", Reading(channels=4)), image)
    assert read_header(tmp_path / "image.png", 4).deep == deep
    assert read_image(tmp_path / "image.png").shape == (37, 53, 3), "on white, as ever"


def test_grey_pictures_have_one_band(tmp_path: Path) -> None:
    image = noise(1)
    picture = Image.fromarray(image[..., 0])
    for name in ("image.png", "image.bmp", "image.tif"):
        picture.save(tmp_path / name)
        np.testing.assert_array_equal(read_image(tmp_path / name, Reading(channels=1)), image)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "image.jpg", quality=95, exif=exif)
    expected = np.asarray(Image.open(tmp_path / "image.jpg"))[..., None]
    np.testing.assert_array_equal(read_image(tmp_path / "image.jpg", Reading(channels=1)), expected)
    upright = read_image(tmp_path / "image.jpg", Reading("apply", channels=1))
    np.testing.assert_array_equal(upright, np.rot90(expected, -1))
    shrunk, by = StoredImage.read(tmp_path / "image.jpg", Reading(channels=1)).decode(2)
    assert (shrunk.shape, by) == ((19, 27, 1), 2)


@pytest.mark.parametrize(
    ("name", "image", "bands"),
    [
        ("a.jpg", Image.fromarray(noise(3)), "3 bands"),
        ("b.png", Image.fromarray(noise(3)), "3 bands"),
        ("c.png", Image.fromarray(noise(1)[..., 0]), "1 band"),
        ("d.png", Image.fromarray(noise(3)).quantize(16), "3 bands"),
        ("e.jpg", Image.fromarray(noise(3)).convert("CMYK"), "3 bands"),
        ("f.npy", noise(5), "5 bands"),
    ],
)  # fmt: skip
def test_another_number_of_bands_is_an_error(tmp_path: Path, name: str, image: Any, bands: str) -> None:
    if isinstance(image, Image.Image):
        image.save(tmp_path / name)
    else:
        np.save(tmp_path / name, image)
    with pytest.raises(UnreadableImageError, match=f"^it has {bands}, and data.channels is 4$"):
        read_image(tmp_path / name, Reading(channels=4))


def test_arrays_that_are_no_images_are_errors(tmp_path: Path) -> None:
    for values in (np.zeros((2, 3, 4, 5)), np.zeros((4, 4, 4), complex), np.zeros((0, 4, 4)), np.array(["a"])):
        np.save(tmp_path / "image.npy", values)
        with pytest.raises(UnreadableImageError, match="is no image: save numbers as"):
            read_image(tmp_path / "image.npy", Reading(channels=4))
    np.save(tmp_path / "image.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "image.npy", Reading(channels=4))


@pytest.mark.parametrize("channels", CHANNELS)
def test_all_channels_are_resized_alike(channels: int) -> None:
    image = noise(channels, (120, 90))
    for size in ((40, 30), (60, 64), (200, 33), (300, 300)):
        for resize in (resize_for_training, resize_for_evaluation):
            whole = resize(image, *size)
            assert whole.shape == (*size, channels)
            for channel in range(channels):
                alone = resize(np.ascontiguousarray(image[..., [channel] * 3]), *size)
                np.testing.assert_array_equal(whole[..., channel], alone[..., 0])
    pixels, span = evaluation_input(image, (96, 96), letterbox=True)
    assert pixels.shape == (96, 96, channels)
    assert span == (120, 120)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_channels_are_turned_alike(channels: int, orientation: int) -> None:
    image = noise(channels)
    whole = turned(image, orientation)
    for channel in range(channels):
        alone = turned(np.ascontiguousarray(image[..., [channel] * 3]), orientation)
        np.testing.assert_array_equal(whole[..., channel], alone[..., 0])
