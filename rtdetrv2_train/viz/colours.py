"""Colours of classes, as RGB from 0 to 255."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]


def class_colour(label: int) -> Colour:
    """The colour of a class, the same in every picture.

    Hues advance by the golden ratio, so that neighbouring classes differ and no number of classes needs to be known;
    lightness changes where the hues come round, after 13 of them.
    """
    hue = (0.02 + label * 0.618034) % 1
    lightness = (0.5, 0.38, 0.64)[label // 13 % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def contrasting(colour: Colour) -> Colour:
    """Black or white, whichever is easier to read on a colour."""
    # Relative luminance with the weights of ITU-R BT.709, on the encoded values: near enough to choose black or white.
    luminance = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
    return (0, 0, 0) if luminance > 128 else (255, 255, 255)
