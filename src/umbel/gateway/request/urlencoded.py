"""Parser of ``application/x-www-form-urlencoded``, the format of queries and forms (WHATWG URL, section 5.1).

Only the fields that are asked for are decoded; others may hold any bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from urllib.parse import unquote_to_bytes


class BadFieldError(ValueError):
    """A field is not UTF-8. ``str(error)`` is the name of the field; empty if the name itself is not UTF-8."""


class Names:
    """Set of names of the fields to decode."""

    __slots__ = ("_by_bytes", "_longest")

    def __init__(self, names: Iterable[str]) -> None:
        self._by_bytes = {name.encode(): name for name in names}
        # A percent-encoded byte has three characters.
        self._longest = 3 * max(map(len, self._by_bytes), default=0)

    def __bool__(self) -> bool:
        return bool(self._by_bytes)

    def find(self, raw: bytes) -> str | None:
        """The name that ``raw`` encodes, if it is in the set; else None."""
        if b"%" not in raw and b"+" not in raw:
            return self._by_bytes.get(raw)
        return self._by_bytes.get(_bytes_of(raw)) if len(raw) <= self._longest else None


def read_fields(raw: bytes, names: Names | None) -> Iterator[tuple[str, str]]:
    """Iterate over the decoded fields with one of ``names`` (None: all fields), in order.

    A percent sign that begins no escape is kept.

    Raises:
        BadFieldError: one of these fields is not UTF-8.
    """
    for piece in raw.split(b"&"):
        if not piece:
            continue
        raw_name, _, value = piece.partition(b"=")
        name = _text(raw_name, "") if names is None else names.find(raw_name)
        if name is not None:
            yield name, _text(value, name)


def read_valid_fields(raw: bytes, names: Names) -> Iterator[tuple[str, str]]:
    """Iterate over the decoded fields with one of ``names``, in order. A field that is not UTF-8 counts as absent."""
    for piece in raw.split(b"&"):
        with suppress(BadFieldError):
            yield from read_fields(piece, names)


def _bytes_of(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))


def _text(raw: bytes, name: str) -> str:
    try:
        # UTF-8 without percent-encoding is accepted too: curl sends it, and the standard allows it (section 5.1).
        return (_bytes_of(raw) if b"%" in raw or b"+" in raw else raw).decode()
    except UnicodeDecodeError as error:
        raise BadFieldError(name) from error
