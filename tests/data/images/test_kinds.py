"""Kinds of image files that cameras, microscopes and phones write, each against the pixels that it was made of."""

from __future__ import annotations

import builtins
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from rtdetrv2_train.data.images.decode import Reading, UnreadableImageError, read_header, read_image

ROWS, COLUMNS = np.mgrid[:40, :60]
COLOUR = np.stack([COLUMNS * 255 // 59, ROWS * 255 // 39, np.full((40, 60), 60)], axis=2).astype(np.uint8)
GREY = np.ascontiguousarray(COLOUR[..., 0])
IN_GREY = np.stack([GREY] * 3, axis=2)
DEEP_COLOUR, DEEP_GREY = COLOUR.astype(np.uint16) * 257, GREY.astype(np.uint16) * 257
HALF = np.full((40, 60, 1), 128, np.uint8)
ON_WHITE = np.rint(COLOUR * (128 / 255) + 255 * (127 / 255)).astype(np.uint8)
BANDS_FIRST = np.ascontiguousarray(DEEP_COLOUR.transpose(2, 0, 1))
RGB: dict[str, Any] = {"photometric": "rgb"}
PLANAR: dict[str, Any] = {**RGB, "planarconfig": "separate"}
WHITE_IS_ZERO: dict[str, Any] = {"photometric": "miniswhite"}
LZW: dict[str, Any] = {"compression": "lzw"}
PREDICTED: dict[str, Any] = {"compression": "zlib", "predictor": True}


def written(path: Path, values: NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (DEEP_COLOUR, RGB, COLOUR),
        (DEEP_COLOUR, {**RGB, "byteorder": ">"}, COLOUR),
        (DEEP_COLOUR, {**RGB, **LZW}, COLOUR),
        (DEEP_COLOUR, {**RGB, **PREDICTED}, COLOUR),
        (BANDS_FIRST, PLANAR, COLOUR),
        ((BANDS_FIRST // 257).astype(np.uint8), {**PLANAR, **LZW}, COLOUR),
        ((COLOUR / 255).astype(np.float32), RGB, COLOUR),
        (np.dstack([DEEP_COLOUR, HALF.astype(np.uint16) * 257]), {**RGB, "extrasamples": ["unassalpha"]}, ON_WHITE),
        (np.dstack([DEEP_COLOUR, DEEP_GREY]), {**RGB, "extrasamples": ["unspecified"]}, COLOUR),
        (COLOUR, {"photometric": "minisblack", "planarconfig": "contig"}, COLOUR),
        (COLOUR, {**RGB, "bigtiff": True}, COLOUR),
        (COLOUR, {**RGB, "bigtiff": True, "byteorder": ">"}, COLOUR),
        (DEEP_GREY, {"bigtiff": True}, IN_GREY),
        ((GREY / 255).astype(np.float16), {}, IN_GREY),
        ((GREY / 255).astype(np.float32), {"compression": "zlib", "predictor": 3}, IN_GREY),
        (GREY / 255, {}, IN_GREY),
        (255 - GREY, WHITE_IS_ZERO, IN_GREY),
        (65535 - DEEP_GREY, WHITE_IS_ZERO, IN_GREY),
        (65535 - DEEP_GREY, {**WHITE_IS_ZERO, **LZW}, IN_GREY),
        (GREY > 127, {"photometric": "minisblack"}, np.where(IN_GREY > 127, 255, 0)),
        (GREY <= 127, WHITE_IS_ZERO, np.where(IN_GREY > 127, 255, 0)),
    ],
    ids=[
        *("16 bits", "16 bits, big endian", "16 bits, LZW", "16 bits, predictor", "16 bits, planar", "8 bits, planar"),
        *("float colours", "16 bits with alpha", "16 bits and a band more", "3 bands that are no RGB", "BigTIFF"),
        *("BigTIFF, big endian", "BigTIFF, grey", "float16", "float32, predictor", "float64", "white is 0"),
        *("white is 0, 16 bits", "white is 0, LZW", "1 bit", "1 bit, white is 0"),
    ],
)  # fmt: skip
def test_tiffs(tmp_path: Path, values: NDArray[Any], options: dict[str, Any], expected: NDArray[Any]) -> None:
    path = written(tmp_path / "image.tif", values, **options)
    tolerance = 1 if values.dtype == np.float16 else 0
    np.testing.assert_allclose(read_image(path).astype(int), expected, atol=tolerance)
    header = read_header(path)
    assert header[:3] == (40, 60, 1)
    assert header.deep == (values.dtype not in (np.uint8, bool))


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32, np.int32, np.float32])
def test_a_range_applies_to_values_of_any_type(tmp_path: Path, kind: type) -> None:
    low, step = (-12000, 100) if np.issubdtype(kind, np.signedinteger) else (2000, 100)
    step = 16_000_000 if kind is np.uint32 else step
    path = written(tmp_path / "image.tif", (GREY.astype(np.float64) * step + low).astype(kind))
    pixels = read_image(path, Reading(pixel_range=(low, low + 255 * step)))
    np.testing.assert_allclose(pixels.astype(int), IN_GREY, atol=1)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_of_12_bits_in_16_are_read_in_full(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    cv2.imwrite(str(path), (COLOUR[..., ::-1].astype(np.uint16) * 16))
    assert read_header(path).deep
    np.testing.assert_allclose(read_image(path, Reading(pixel_range=(0, 4080))).astype(int), COLOUR, atol=1)
    assert read_image(path).max() <= 15, "without a range they are taken for 16 bits"


def test_colours_of_16_bits_are_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", DEEP_COLOUR[..., ::-1])[1].tobytes())
    plain = Image.open(tmp_path / "deep.png")
    assert plain.size == (60, 40)
    content = (tmp_path / "deep.png").read_bytes()
    block = exif.tobytes()[6:]  # without JPEG's own mark
    chunk = b"eXIf" + block
    whole = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "turned.png").write_bytes(content[:33] + whole + content[33:])
    for exif_is, expected in (("ignore", COLOUR), ("apply", np.rot90(COLOUR, -1))):
        np.testing.assert_array_equal(read_image(tmp_path / "turned.png", Reading(exif_is)), expected)  # type: ignore[arg-type]
    path = written(tmp_path / "turned.tif", DEEP_COLOUR, **RGB, extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(read_image(path), np.rot90(COLOUR, -1))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000_of_any_depth(tmp_path: Path, bits: int) -> None:
    """Pillow takes the brightest of 16 bits for black."""
    path = tmp_path / "image.jp2"
    values = {8: COLOUR, 12: COLOUR.astype(np.uint16) * 16, 16: DEEP_COLOUR}[bits]
    path.write_bytes(imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits))
    np.testing.assert_array_equal(read_image(path), COLOUR)
    assert read_header(path).deep == (bits == 16)


def test_lab_and_inks_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    for name, converted, tolerance in (
        ("lab.tif", ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB")), 40),
        ("cmyk.tif", image.convert("CMYK"), 0),
        ("cmyk.jpg", image.convert("CMYK"), 12),
    ):
        assert converted is not None
        converted.save(tmp_path / name)
        differences = np.abs(read_image(tmp_path / name).astype(int) - COLOUR)
        assert differences.max() <= tolerance, name
        assert np.median(differences) <= 2, name


def test_a_tiff_of_several_pages_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "pages.tif", np.stack([COLOUR] * 3), **RGB)
    for reads in (read_image, read_header):
        with pytest.raises(UnreadableImageError, match=r"^it has 3 pages: split it into files of one page each$"):
            reads(path)


@pytest.mark.parametrize("first", ["image", "thumbnail"])
def test_smaller_copies_and_masks_are_no_pages(tmp_path: Path, first: str) -> None:
    pages: list[tuple[NDArray[Any], dict[str, Any]]] = [
        (COLOUR, {**RGB, "subfiletype": 0}),
        (COLOUR[::2, ::2], {**RGB, "subfiletype": 1}),
        (COLOUR[::4, ::4], {**RGB, "subfiletype": 1}),
        (GREY > 3, {"photometric": 4, "subfiletype": 4}),
    ]
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as file:
        for values, options in pages if first == "image" else pages[1::-1]:
            file.write(values, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "pyramid.tif"), COLOUR)
    assert read_header(tmp_path / "pyramid.tif")[:2] == (40, 60)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_of_an_animation_the_first_picture_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving.{suffix}"
    first, second = (Image.fromarray(np.full((40, 60, 3), value, np.uint8)) for value in (40, 200))
    first.save(path, save_all=True, append_images=[second], duration=100)
    assert read_header(path).animated
    np.testing.assert_allclose(read_image(path).astype(int), 40, atol=2)
    first.save(path)
    assert not read_header(path).animated


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_avif_and_heic_are_turned_as_they_say(tmp_path: Path, orientation: int) -> None:
    """Pillow tells AVIF's orientation, pillow-heif turns HEIC itself: both end as on a phone's screen."""
    quarter_turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    heic = pillow_heif.from_pillow(Image.fromarray(COLOUR))
    heic.save(tmp_path / "image.heic", quality=95, exif=exif.tobytes())
    Image.fromarray(COLOUR).save(tmp_path / "image.avif", quality=95, exif=exif)
    for name in ("image.heic", "image.avif"):
        header = read_header(tmp_path / name)
        expected = np.rot90(COLOUR, quarter_turns)
        assert header.upright_size == expected.shape[:2], name
        pixels = read_image(tmp_path / name, Reading("apply"))
        np.testing.assert_allclose(pixels.astype(int), expected, atol=12, err_msg=name)


def test_heic_names_the_extra_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif.from_pillow(Image.fromarray(COLOUR)).save(tmp_path / "image.heic")
    _hide(monkeypatch, "pillow_heif")
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    for reads in (read_image, read_header):
        with pytest.raises(UnreadableImageError, match=r'HEIC needs `pip install "rtdetrv2-train\[heic\]"`'):
            reads(tmp_path / "image.heic")


def test_a_tiff_that_pillow_cannot_read_names_the_extra_that_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "image.tif", (GREY / 255).astype(np.float16))
    _hide(monkeypatch, "tifffile")
    for reads in (read_image, read_header):
        with pytest.raises(UnreadableImageError, match=r'pip install "rtdetrv2-train\[multispectral\]"'):
            reads(path)


def _hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = builtins.__import__

    def without(module: str, *arguments: Any, **options: Any) -> Any:
        if module == name:
            raise ImportError(name)
        return real(module, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
