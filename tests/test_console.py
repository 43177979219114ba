"""What is printed is shown as it is."""

from __future__ import annotations

import pytest

from rtdetrv2_train.console import print_line


def test_a_line_is_neither_markup_nor_emoji_nor_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    line = r"written x [v1]/[/b]/\[/b]/:car:/" + 80 * "long "
    print_line(line, "yellow")
    assert capsys.readouterr().out.rstrip("\n") == line
