from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rtdetrv2_train.data.images import pillow_files
from rtdetrv2_train.data.images.decode import Reading, UnreadableImageError, read_header, read_image

GREY = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
COLOUR = np.stack([GREY, GREY[:, ::-1], np.full_like(GREY, 90)], axis=2)


def saved(tmp_path: Path, image: Image.Image, name: str = "image.png", **options: object) -> Path:
    path = tmp_path / name
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=2)),
        (Image.fromarray(GREY.astype(np.uint16) * 257), np.stack([GREY] * 3, axis=2)),
        (Image.fromarray(COLOUR).convert("RGBA"), COLOUR),
        (Image.fromarray(GREY > 127), np.stack([(GREY > 127) * 255] * 3, axis=2)),
    ],
    ids=["rgb", "grey", "16 bits", "alpha", "1 bit"],
)
def test_every_kind_of_png_becomes_rgb(tmp_path: Path, image: Image.Image, expected: NDArray[np.uint8]) -> None:
    pixels = read_image(saved(tmp_path, image))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    layers = np.dstack([COLOUR, np.where(GREY < 100, 0, 255).astype(np.uint8)])
    pixels = read_image(saved(tmp_path, Image.fromarray(layers)))
    assert (pixels[GREY < 100] == 255).all()
    np.testing.assert_array_equal(pixels[GREY >= 100], COLOUR[GREY >= 100])


def test_palettes_become_rgb(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOUR).quantize(256)
    np.testing.assert_array_equal(read_image(saved(tmp_path, palette)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_decode_as_pillow_decodes_them(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path, Image.fromarray(COLOUR).convert(mode), "image.jpg", quality=90)
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
def test_the_orientation_in_exif_is_ignored(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(saved(tmp_path, Image.fromarray(COLOUR), name, exif=exif)).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_range_of_values_becomes_8_bits(tmp_path: Path, kind: type) -> None:
    values = (20000 + 1500 * (GREY / 252)).astype(kind)
    path = saved(tmp_path, Image.fromarray(values), "image.tif")
    assert read_header(path).deep
    pixels = read_image(path, Reading(pixel_range=(20000, 21500)))
    np.testing.assert_allclose(pixels[..., 0], GREY / 252 * 255, atol=1)
    assert read_image(path, Reading(pixel_range=(20500, 21000))).min() == 0
    assert read_image(path, Reading(pixel_range=(20500, 21000))).max() == 255


def test_a_range_of_values_changes_no_image_of_8_bits(tmp_path: Path) -> None:
    for image in (Image.fromarray(COLOUR), Image.fromarray(GREY)):
        path = saved(tmp_path, image)
        assert not read_header(path).deep
        np.testing.assert_array_equal(read_image(path, Reading(pixel_range=(0, 10))), read_image(path))


@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
def test_images_beyond_the_limit_are_read_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = saved(tmp_path, Image.fromarray(COLOUR), name)
    expected = read_image(path)
    monkeypatch.setattr(pillow_files, "_MOST_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(UnreadableImageError, match="over 1,000 pixels: only prediction with tile= reads it"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, Reading(large=True)), expected)
    assert read_header(path)[:2] == (48, 64)
    assert Image.MAX_IMAGE_PIXELS == 500, "what else this process reads is still guarded"
    monkeypatch.setattr(pillow_files, "available_memory", lambda: 30_000)
    with pytest.raises(UnreadableImageError, match=r"64 x 48 pixels take 0\.0 GB of memory, and 0\.0 GB are free"):
        read_image(path, Reading(large=True))


@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UnreadableImageError):
        read_image(path)


def test_missing_empty_and_other_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_image(tmp_path / "none.jpg")
    for content in (b"", b"<html>not found</html>"):
        (tmp_path / "wrong.jpg").write_bytes(content)
        with pytest.raises(UnreadableImageError, match=r"cannot identify image file$"):
            read_image(tmp_path / "wrong.jpg")


def test_photographs_decode_as_pillow_decodes_them(shared_data: Path) -> None:
    paths = sorted((shared_data / "tiny_coco/val2017").glob("*.jpg"))
    assert len(paths) == 50
    for path in paths[:20]:
        np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))
