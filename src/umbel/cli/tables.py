"""Rows as a table for the terminal: columns as wide as their widest cell, numbers to the right.

Knows text only.
"""

from __future__ import annotations

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table, a line each, without trailing spaces."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return "\n".join(_line(row, widths) for row in (columns, *rows))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width) for cell, width in cells).rstrip()
