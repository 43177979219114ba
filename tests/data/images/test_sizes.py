from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.images import sizes as sizes_module
from rtdetrv2_train.data.images.decode import Exif, read_header
from rtdetrv2_train.data.images.sizes import IMAGE_SUFFIXES, image_sizes
from rtdetrv2_train.errors import UserError

HEIGHT, WIDTH = 37, 53
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
XMP = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def image(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(PIXELS).convert(mode)


def exif(orientation: int, *others: tuple[int, Any]) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    for tag, value in others:
        block[tag] = value
    return block.tobytes()


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segments(path: Path, *segments: bytes) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"".join(segments) + content[2:])


def only_pillow_may_look(monkeypatch: pytest.MonkeyPatch, looked: list[str]) -> None:
    def recorded(path: Path) -> Any:
        looked.append(path.name)
        return read_header(path)

    monkeypatch.setattr(sizes_module, "read_header", recorded)


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("baseline.jpg", "RGB", {}),
        ("progressive.jpg", "RGB", {"progressive": True}),
        ("grey.jpg", "L", {}),
        ("cmyk.jpg", "CMYK", {}),
        ("restarts.jpg", "RGB", {"restart_marker_rows": 1}),
        ("profile.jpg", "RGB", {"icc_profile": bytes(200_000)}),
        ("comment.jpg", "RGB", {"comment": b"\xff\xc0 is no frame" * 2000}),
        ("turned.jpg", "RGB", {"exif": exif(6)}),
        ("upside_down.jpg", "RGB", {"exif": exif(3)}),
        ("colour.png", "RGB", {}),
        ("grey.png", "L", {}),
        ("bits.png", "1", {}),
        ("palette.png", "P", {}),
        ("alpha.png", "RGBA", {}),
        ("described.png", "RGB", {"icc_profile": bytes(3000), "dpi": (300, 300)}),
    ],
)
def test_plain_jpegs_and_pngs_are_read_without_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, mode: str, options: dict[str, Any]
) -> None:
    image(mode).save(tmp_path / name, **options)
    looked: list[str] = []
    only_pillow_may_look(monkeypatch, looked)
    turned = name == "turned.jpg"
    assert image_sizes(tmp_path, [name], "ignore") == [(HEIGHT, WIDTH)]
    assert image_sizes(tmp_path, [name], "auto") == [(WIDTH, HEIGHT) if turned else (HEIGHT, WIDTH)]
    assert looked == []


def test_a_png_of_16_bits(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert image_sizes(tmp_path, ["deep.png"], "apply") == [(HEIGHT, WIDTH)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("others", [(), ((0x010F, "a camera"), (0x0110, "of some model"), (0x011A, 72.0))])
def test_sizes_are_upright_unless_exif_is_ignored(
    tmp_path: Path, orientation: int, others: tuple[tuple[int, Any], ...]
) -> None:
    for name in ("a.jpg", "b.png"):
        image().save(tmp_path / name, exif=exif(orientation, *others))
    upright = (WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH)
    for choice, expected in (("ignore", (HEIGHT, WIDTH)), ("auto", upright), ("apply", upright)):
        assert image_sizes(tmp_path, ["a.jpg", "b.png"], choice) == [expected] * 2  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_other_orders_of_bytes_and_unusual_orientations_are_as_pillow_reads_them(tmp_path: Path) -> None:
    entries = {
        "big": b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 8, 0, 0),
        "little": b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 8, 0, 0),
        "long": b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x0112, 4, 1, 8, 0),
        "nine": b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 9, 0, 0),
        "cut": b"II*\0" + struct.pack("<IH", 8, 40),
        "none": b"II*\0" + struct.pack("<IHI", 8, 0, 0),
        "odd": b"XX*\0" + bytes(20),
    }
    for name, entry in entries.items():
        image().save(tmp_path / f"{name}.jpg")
        with_segments(tmp_path / f"{name}.jpg", segment(0xE1, b"Exif\0\0" + entry))
    image().save(tmp_path / "xmp.jpg")
    with_segments(tmp_path / "xmp.jpg", segment(0xE1, XMP))
    image().save(tmp_path / "both.jpg", exif=exif(1))
    with_segments(tmp_path / "both.jpg", segment(0xE1, XMP))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert image_sizes(tmp_path, names, "apply") == [read_header(tmp_path / name).upright_size for name in names]
    assert image_sizes(tmp_path, ["big.jpg", "little.jpg", "none.jpg", "both.jpg"], "auto") == [
        (WIDTH, HEIGHT),
        (WIDTH, HEIGHT),
        (HEIGHT, WIDTH),
        (HEIGHT, WIDTH),
    ]


def test_a_large_preview_before_the_size_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image().save(tmp_path / "a.jpg")
    preview = segment(0xE2, b"MPF\0" + b"\xff\xc0\0\x0b\x08\0\x01\0\x01" * 5000)
    with_segments(tmp_path / "a.jpg", preview, preview, preview)
    looked: list[str] = []
    only_pillow_may_look(monkeypatch, looked)
    assert image_sizes(tmp_path, ["a.jpg"], "auto") == [(HEIGHT, WIDTH)]
    assert looked == []


@pytest.mark.parametrize("suffix", [".bmp", ".gif", ".tif", ".webp", ".ppm", ".tga", ".jp2"])
def test_other_kinds_are_read_by_pillow(tmp_path: Path, suffix: str) -> None:
    image().save(tmp_path / f"a{suffix}")
    assert suffix in IMAGE_SUFFIXES
    assert image_sizes(tmp_path, [f"a{suffix}"], "auto") == [(HEIGHT, WIDTH)]


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    image().save(tmp_path / "a.png", format="JPEG")
    image().save(tmp_path / "b.jpg", format="WEBP")
    assert image_sizes(tmp_path, ["a.png", "b.jpg"], "auto") == [(HEIGHT, WIDTH)] * 2


def test_names_may_lead_into_folders(tmp_path: Path) -> None:
    (tmp_path / "inner folder").mkdir()
    image().save(tmp_path / "inner folder/ä.jpg")
    assert image_sizes(tmp_path, ["inner folder/ä.jpg"], "auto") == [(HEIGHT, WIDTH)]
    assert image_sizes(tmp_path, [], "auto") == []


@pytest.mark.parametrize(
    ("suffix", "length"),
    [
        *((".jpg", length) for length in (0, 1, 3, 12, 25, 40, 150)),
        *((".png", length) for length in (0, 1, 12, 25, 33)),
    ],
)
def test_a_file_that_is_cut_before_its_pixels_is_named(tmp_path: Path, suffix: str, length: int) -> None:
    image().save(tmp_path / f"whole{suffix}")
    (tmp_path / f"cut{suffix}").write_bytes((tmp_path / f"whole{suffix}").read_bytes()[:length])
    with pytest.raises(UserError, match=rf"the image '.*cut\{suffix}' cannot be read \(.+\): replace it") as raised:
        image_sizes(tmp_path, [f"whole{suffix}", f"cut{suffix}"], "auto")
    assert "\n" not in str(raised.value)


def test_a_png_with_a_broken_header_is_judged_by_pillow(tmp_path: Path) -> None:
    image().save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[19] ^= 1  # the width, which the checksum no longer fits
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"'.*a\.png' cannot be read"):
        image_sizes(tmp_path, ["a.png"], "ignore")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the image '.*nowhere\.jpg' is missing"):
        image_sizes(tmp_path, ["nowhere.jpg"], "auto")
    with pytest.raises(UserError, match=r"the folder of images '.*none' cannot be read: No such file"):
        image_sizes(tmp_path / "none", ["a.jpg"], "auto")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(UserError, match=r"the image '.*folder\.jpg' cannot be read"):
        image_sizes(tmp_path, ["folder.jpg"], "auto")


@pytest.mark.parametrize("choice", ["ignore", "auto"])
def test_real_images_have_the_sizes_that_pillow_reads(shared_data: Path, choice: Exif) -> None:
    files = [path for part in shared_data.glob("*/*") for path in part.glob("*.jpg")]
    names = [path.relative_to(shared_data).as_posix() for path in files]
    headers = [read_header(path) for path in files]
    assert len(files) > 400
    assert image_sizes(shared_data, names, choice) == [
        (header.height, header.width) if choice == "ignore" else header.upright_size for header in headers
    ]
