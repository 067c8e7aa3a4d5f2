"""Text in a document between two marker lines, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""

from __future__ import annotations

from pathlib import Path


def replace_marked(document: Path, name: str, text: str) -> None:
    """Replace the text between the markers of ``name``.

    Raises:
        SystemExit: the document does not have both markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = document.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{document} has no line {begin} with a line {end} after it")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
