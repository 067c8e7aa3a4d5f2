"""Tables and texts for a terminal, of values that may hold anything."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def short_time(seconds: float) -> str:
    """Format a duration in its two largest units, such as ``3d 4h`` or ``5m 12s``."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    while len(parts) > 1 and not parts[0][0]:
        parts.pop(0)
    return " ".join(f"{count}{unit}" for count, unit in parts[:2])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format rows below column names: columns as wide as their widest cell, numbers aligned to the right."""
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return "\n".join(_row(row, widths) for row in (columns, *rows))


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=True)
    return "  ".join(cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width) for cell, width in cells).rstrip()


def plain(text: str) -> str:
    """Return the text without control characters, which could move the cursor of a terminal."""
    return _CONTROL.sub("�", text)


def cut(text: str, width: int) -> str:
    """Return the text with at most ``width`` characters; an ellipsis replaces what is left out."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
