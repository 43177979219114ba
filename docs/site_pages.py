"""Pages of the site that lie elsewhere in the repository, for MkDocs.

README files and the like stay where a reader of the repository looks for them. Here they become pages of the site, and
links between them and the pages of ``docs/`` are rewritten, so that they work in both places.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = {
    "BENCHMARKS.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "datasets/README.md": "datasets.md",
}
_FIRST = ("train.md", "data.md", "distributed.md", "troubleshooting.md")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, with links to ``docs/`` as they are within it."""
    for source, page in _PAGES.items():
        text = (_ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\]\((?:\.\./)?docs/", "](", text)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links from ``docs/`` to these files lead to their pages; who searches finds what users read first."""
    page.meta.setdefault("search", {"boost": 2 if page.file.src_uri in _FIRST else 1})
    for source, page in _PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({page}").replace(f"]({source}", f"]({page}")
    return markdown
