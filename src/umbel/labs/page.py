"""A lab as one HTML file that needs no network: text, style, script and data."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from .document import as_document
from .model import Lab, Run

_PARTS = Path(__file__).parent / "page"


def page_of(lab: Lab, runs: Mapping[str, Run]) -> str:
    """Return the page."""
    # In a script element only "<" can end it or begin a comment; in JSON it stands in strings only.
    data = as_document(lab, runs).replace("<", "\\u003c")
    page = (_PARTS / "page.html").read_text(encoding="utf-8")
    for name, text in (
        ("TITLE", html.escape(f"Lab {lab.number}: {lab.title}")),
        ("STYLE", (_PARTS / "page.css").read_text(encoding="utf-8")),
        ("SCRIPT", (_PARTS / "page.js").read_text(encoding="utf-8")),
        ("DATA", data),
    ):
        page = page.replace(f"@{name}@", text)
    return page
