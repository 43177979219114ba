"""Fonts for names in any language. Pillow's own has hardly more than ASCII, Matplotlib's no Chinese, for instance."""

from __future__ import annotations

import logging
from functools import cache

from PIL import ImageFont

log = logging.getLogger(__name__)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@cache
def shown_names(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """What pictures call classes: their names, or numbers where no font has the characters, which the log says."""
    unreadable = [label for label, name in enumerate(class_names) if not name.isascii() and font_file(name) is None]
    if unreadable:
        log.warning(
            "no installed font has the characters of these class names, so that pictures show numbers: %s; install one "
            "that has them, such as Noto Sans CJK",
            ", ".join(f"{label} is '{class_names[label]}'" for label in unreadable),
        )
    return tuple(
        str(label) if label in unreadable else " ".join(name.split()) for label, name in enumerate(class_names)
    )


def font_for(text: str, size: int) -> Font:
    """A font of a size in pixels that has the characters of a text."""
    path = None if text.isascii() else font_file(text)
    return ImageFont.load_default(size=size) if path is None else ImageFont.truetype(path, size)


@cache
def font_file(text: str) -> str | None:
    """File of an installed font with all characters of a text; None if there is none. Takes Matplotlib to find it."""
    wanted = {ord(character) for character in text if not character.isspace()}
    return next((path for path in _font_files() if wanted <= _characters(path)), None)


@cache
def _font_files() -> list[str]:
    """Upright fonts of usual weight: Matplotlib's own first, then those without serifs.

    Without "Last Resort", which claims every character, and draws a box for it.
    """
    from matplotlib.font_manager import fontManager

    fonts = [font for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal")]
    fonts = [font for font in fonts if "Last Resort" not in font.name]
    fonts.sort(key=lambda font: (font.name != "DejaVu Sans", "Sans" not in font.name, font.name))
    return [font.fname for font in fonts]


@cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())
