"""What is seen of images is kept, whole, as long as they do not change."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image

from rtdetrv2_train.data.inspection.looks import MISSING, look_at, look_at_all, look_or_recall
from rtdetrv2_train.data.inspection.looks_file import LooksFile
from rtdetrv2_train.errors import UserError
from tests.data.inspection.small_sets import picture


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), picture(number))
    return paths


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1)).save(path, exif=exif)
    look = look_at(path, 3)
    assert (look.error, look.height, look.width, look.orientation) == ("", 150, 200, 6)
    assert (look.length, look.plain, look.deep) == (path.stat().st_size, False, False)
    Image.fromarray(np.full((150, 200), 90, np.uint8)).save(tmp_path / "plain.png")
    assert look_at(tmp_path / "plain.png", 3).plain
    cv2.imwrite(str(tmp_path / "deep.png"), np.linspace(100, 4000, 30_000).astype(np.uint16).reshape(150, 200))
    deep = look_at(tmp_path / "deep.png", 3)
    assert deep.deep
    assert (deep.low, deep.high) == pytest.approx((104, 3996), abs=4)


def test_what_cannot_be_read_says_why_and_is_looked_at_again(tmp_path: Path) -> None:
    (path,) = pictures(tmp_path, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with LooksFile(tmp_path / "seen", "a") as file:
        assert "truncated" in look_or_recall(path, 3, file).error
        assert look_or_recall(tmp_path / "none.jpg", 3, file).error == MISSING
        (tmp_path / "text.jpg").write_text("no image")
        assert look_or_recall(tmp_path / "text.jpg", 3, file).error
    assert LooksFile(tmp_path / "seen", "a").recalled == 0


def test_unchanged_files_are_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pictures(tmp_path, 40)
    with LooksFile(tmp_path / "seen", "a") as file:
        first = look_at_all(paths, 3, file)
    assert len({look.hash for look in first}) == 40
    looked_at: list[Path] = []

    def look(path: Path, channels: int) -> object:
        looked_at.append(path)
        return look_at(path, channels)

    monkeypatch.setattr("rtdetrv2_train.data.inspection.looks.look_at", look)
    os.utime(paths[7], ns=(1, 1))
    cv2.imwrite(str(paths[9]), picture(99))
    with LooksFile(tmp_path / "seen", "a") as file:
        assert file.recalled == 40
        second = look_at_all(paths, 3, file)
    assert sorted(looked_at) == sorted([paths[7], paths[9]])
    assert [a == b for a, b in zip(first, second, strict=True)] == [number != 9 for number in range(40)]
    with LooksFile(tmp_path / "seen", "a") as file:
        assert look_at_all(paths, 3, file) == second
    assert len(looked_at) == 2


@pytest.mark.parametrize("cut", [1, 7, 100, 1200])
def test_what_a_killed_process_left_at_the_end_does_not_count(tmp_path: Path, cut: int) -> None:
    paths = pictures(tmp_path, 5)
    seen = tmp_path / "seen"
    with LooksFile(seen, "a") as file:
        expected = look_at_all(paths, 3, file)
    seen.write_bytes(seen.read_bytes()[:-cut])
    with LooksFile(seen, "a") as file:
        assert 3 <= file.recalled < 5
        assert look_at_all(paths, 3, file) == expected
    assert LooksFile(seen, "a").recalled == 5


def test_a_damaged_record_ends_what_counts(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 4)
    seen = tmp_path / "seen"
    with LooksFile(seen, "a") as file:
        expected = look_at_all(paths, 3, file)
    content = bytearray(seen.read_bytes())
    content[len(content) // 2] ^= 1
    seen.write_bytes(content)
    with LooksFile(seen, "a") as file:
        assert 1 <= file.recalled < 4
        assert look_at_all(paths, 3, file) == expected


def test_what_is_about_another_set_is_begun_anew(tmp_path: Path) -> None:
    with LooksFile(tmp_path / "seen", "a") as file:
        file.keep(("a.jpg", 1, 2), msgspec.msgpack.encode("x"))
    assert LooksFile(tmp_path / "seen", "a").recall(("a.jpg", 1, 2)) == msgspec.msgpack.encode("x")
    assert LooksFile(tmp_path / "seen", "a").recall(("a.jpg", 1, 3)) is None
    assert LooksFile(tmp_path / "seen", "b").recalled == 0
    with pytest.raises(UserError, match="give another output="):
        LooksFile(tmp_path / "none" / "seen", "a")
