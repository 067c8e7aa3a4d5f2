"""Whatever somebody hands to a log, as values that JSON knows, bounded and without secrets.

Used for records that the fast path cannot take. It never raises for what a value is or does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from .redact import REDACTED, TEXT_CHARS_MAX, Redactor, cut

DEPTH_MAX = 8
"""Deeper values are told by their type."""
ITEMS_MAX = 1000
"""Of a longer list or mapping the beginning is told, and how much there is more."""

NAME_CHARS_MAX = 1024
"""Of a longer key the beginning is told."""
VALUES_MAX = 4096
"""Of a record that holds more values in all, lists and mappings included, the further ones stand as ``…``."""

_INT_MAX = 2**1024
_MORE = "…"


class Room:
    """How much of one record may still be looked through. It bounds the time that a record holds the loop."""

    __slots__ = ("chars", "values")

    def __init__(self) -> None:
        self.chars = TEXT_CHARS_MAX
        """Of all its texts together."""
        self.values = VALUES_MAX


def printable(value: object) -> str:
    """``str(value)``, or its type's name where its ``__str__`` raises; lone surrogates are escaped."""
    try:
        text = str(value)
    except BaseException:  # noqa: BLE001 - a foreign __str__ may raise anything, and a record must not
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def plain(value: object, redactor: Redactor, depth: int = 0, room: Room | None = None) -> Any:
    """The value as None, bool, int, float, str, list or dict, its secrets hidden.

    ``room`` is what the record has left; without one the value has a record's room for itself.
    """
    room = room or Room()
    room.values -= 1
    if room.values < 0:
        return _MORE
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, redactor, room)
    if isinstance(value, int):
        return int(value) if -_INT_MAX < value < _INT_MAX else _text(printable(value), redactor, room)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        told = bytes(value[: room.chars + 1]).decode("utf-8", "backslashreplace")
        return _text(told, redactor, room, max(len(told), len(value)))
    try:
        return _deep(value, redactor, depth, room)
    except Exception:  # noqa: BLE001 - a foreign __iter__ or __repr__ may raise anything, and a record must not
        return f"<{type(value).__name__}>"


def members(
    fields: Mapping[Any, object], redactor: Redactor, depth: int = 0, room: Room | None = None
) -> dict[str, Any]:
    """A mapping with texts as keys, the values of secret names hidden; ``room`` as for ``plain``."""
    room = room or Room()
    told: dict[str, Any] = {}
    shown = 0
    for key, value in islice(fields.items(), ITEMS_MAX):
        if room.values <= 0:
            break
        shown += 1
        name = _name(key)
        if redactor.is_secret(name):
            room.values -= 1
            told[name] = REDACTED
        else:
            told[name] = plain(value, redactor, depth + 1, room)
    if len(fields) > shown:
        told[_MORE] = f"{len(fields) - shown} more"
    return told


def _text(value: str, redactor: Redactor, room: Room, length: int | None = None) -> str:
    """A text without its secrets, and how much of it is left out for want of room."""
    shown = cut(value, room.chars)
    if shown is value:
        room.chars -= len(value)
        return redactor.text(printable(value))
    kept, room.chars = room.chars, 0
    return f"{redactor.text(printable(shown))}{_MORE} {(length or len(value)) - kept} more"


def _deep(value: object, redactor: Redactor, depth: int, room: Room) -> Any:
    if depth >= DEPTH_MAX:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return members(value, redactor, depth, room)
    if isinstance(value, msgspec.Struct):
        return members(msgspec.to_builtins(value, enc_hook=repr), redactor, depth, room)
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, redactor, depth, room)
    return _text(printable(repr(value)), redactor, room)


_TOKEN = re.compile(r"[\w.-]+")


def _items(value: Any, redactor: Redactor, depth: int, room: Room) -> list[Any]:
    # A header as a pair: its name says whether its value is secret. A sentence is no name.
    if len(value) == 2 and isinstance(value, list | tuple) and isinstance(value[0], str | bytes):
        name = _name(value[0])
        if _TOKEN.fullmatch(name) is not None and redactor.is_secret(name):
            return [name, REDACTED]
    items: Iterable[object] = islice(value, ITEMS_MAX)
    told = [plain(item, redactor, depth + 1, room) for item in items]
    if len(value) > ITEMS_MAX:
        told.append(f"… {len(value) - ITEMS_MAX} more")
    return told


def _name(key: object) -> str:
    """A key as a text; of a longer one than any name the beginning."""
    if isinstance(key, bytes):
        key = key[:NAME_CHARS_MAX].decode("utf-8", "backslashreplace")
    return printable(key[:NAME_CHARS_MAX] if isinstance(key, str) else key)[:NAME_CHARS_MAX]
