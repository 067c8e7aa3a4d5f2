"""Whatever somebody hands to a log, as values that JSON knows, bounded and without secrets.

Used by ``encode.py`` for records that the fast path cannot take. It never raises for what a value is or does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from .redact import REDACTED, TEXT_CHARS_MAX, Redactor

DEPTH_MAX = 8
"""Deeper values are told by their type."""
ITEMS_MAX = 1000
"""Of a longer list or mapping the beginning is told, and how much there is more."""

_INT_MAX = 2**1024


def printable(value: object) -> str:
    """``str(value)``, or its type's name where its ``__str__`` raises; lone surrogates are escaped."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything, and a record must not
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def plain(value: object, redactor: Redactor, depth: int = 0) -> Any:
    """The value as None, bool, int, float, str, list or dict, its secrets hidden."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return redactor.text(printable(value[:TEXT_CHARS_MAX]))
    if isinstance(value, int):
        return int(value) if -_INT_MAX < value < _INT_MAX else printable(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        return redactor.text(bytes(value[:TEXT_CHARS_MAX]).decode("utf-8", "backslashreplace"))
    try:
        return _deep(value, redactor, depth)
    except Exception:  # noqa: BLE001 - a foreign __iter__ or __repr__ may raise anything, and a record must not
        return f"<{type(value).__name__}>"


def members(fields: Mapping[Any, object], redactor: Redactor, depth: int = 0) -> dict[str, Any]:
    """A mapping with texts as keys, the values of secret names hidden."""
    told: dict[str, Any] = {}
    for key, value in islice(fields.items(), ITEMS_MAX):
        name = _name(key)
        told[name] = REDACTED if redactor.is_secret(name) else plain(value, redactor, depth + 1)
    if len(fields) > ITEMS_MAX:
        told["…"] = f"{len(fields) - ITEMS_MAX} more"
    return told


def _deep(value: object, redactor: Redactor, depth: int) -> Any:
    if depth >= DEPTH_MAX:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return members(value, redactor, depth)
    if isinstance(value, msgspec.Struct):
        return members(msgspec.to_builtins(value, enc_hook=repr), redactor, depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, redactor, depth)
    return redactor.text(printable(repr(value)))


_TOKEN = re.compile(r"[\w.-]+")


def _items(value: Any, redactor: Redactor, depth: int) -> list[Any]:
    # A header as a pair: its name says whether its value is secret. A sentence is no name.
    if len(value) == 2 and isinstance(value, list | tuple) and isinstance(value[0], str | bytes):
        name = _name(value[0])
        if _TOKEN.fullmatch(name) is not None and redactor.is_secret(name):
            return [name, REDACTED]
    items: Iterable[object] = islice(value, ITEMS_MAX)
    told = [plain(item, redactor, depth + 1) for item in items]
    if len(value) > ITEMS_MAX:
        told.append(f"… {len(value) - ITEMS_MAX} more")
    return told


def _name(key: object) -> str:
    return printable(key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key)
