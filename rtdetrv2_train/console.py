"""Lines on the terminal, shown as they are: no name of a class, a file or a folder is markup or an emoji of rich's."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def print_line(text: str, style: str = "") -> None:
    """Print a line, which is not wrapped."""
    Console().print(Text(text, style), soft_wrap=True)
