"""Names in any language are readable in pictures."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest

from rtdetrv2_train.viz import fonts
from rtdetrv2_train.viz.boxes import draw_detections
from rtdetrv2_train.viz.fonts import font_file, font_for, shown_names

CAT = "\N{CJK UNIFIED IDEOGRAPH-732B}"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What was found is kept for the whole process."""
    yield
    shown_names.cache_clear()
    font_file.cache_clear()
    fonts._font_files.cache_clear()


def pixels(text: str) -> bytes:
    return bytes(font_for(text, 30).getmask(text))


def test_a_font_that_only_claims_to_have_a_character_is_none() -> None:
    assert font_file("\U00101234") is None  # of the private use area, which a font may call its own


@pytest.mark.parametrize(
    "name", ["Gr\u00f6\u00dfe", "v\u00e9lo", "\u0437\u0435\u0431\u0440\u0430", "\u03b6\u03ad\u03b2\u03c1\u03b1"]
)
def test_letters_beyond_ascii_have_a_shape_of_their_own(name: str) -> None:
    assert shown_names((name,)) == (name,)
    missing = bytes(font_for(name, 30).getmask("\U0010fffd"))
    shapes = [pixels(letter) for letter in set(name)]
    assert len(set(shapes)) == len(shapes)
    assert missing not in shapes


def test_ascii_is_drawn_without_looking_for_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "font_file", None)
    assert shown_names(("a", "b c", "d\ne")) == ("a", "b c", "d e")
    font_for("a", 12)


def test_classes_that_no_font_can_write_are_numbers_and_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    only = [path for path in fonts._font_files() if path.endswith("DejaVuSans.ttf")]
    monkeypatch.setattr(fonts, "_font_files", lambda: only)
    grey = np.full((120, 200, 3), 127, np.uint8)
    drawn = []
    with caplog.at_level(logging.WARNING):
        for names in (["dog", CAT], ["dog", CAT], ["dog", "1"]):
            drawn.append(np.asarray(draw_detections(grey, [[20, 60, 120, 110]], [1], [0.9], names)))
    assert np.array_equal(drawn[0], drawn[2])
    (record,) = caplog.records
    assert f"pictures show numbers: 1 is '{CAT}'; install one" in record.getMessage()


def test_a_font_that_has_the_characters_is_found_among_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    characters = {"latin.ttf": frozenset(b"cat 0123456789."), "chinese.ttc": frozenset([ord(CAT), *b"cat"])}
    monkeypatch.setattr(fonts, "_font_files", lambda: list(characters))
    monkeypatch.setattr(fonts, "_characters", characters.__getitem__)
    assert font_file(CAT) == font_file(f"{CAT} cat") == "chinese.ttc"
    assert font_file("dog") is None
    assert shown_names((CAT,)) == (CAT,)
