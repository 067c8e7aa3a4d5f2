"""The fields of ``application/x-www-form-urlencoded`` texts, which queries and forms are (WHATWG URL, section 5.1).

Only the fields that somebody reads are decoded: the bytes of others may be any. Each text is gone through once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes


class BadFieldError(ValueError):
    """A field that is read is not UTF-8, percent-encoded or not. The text is its name, or empty where that is wrong."""


class Names:
    """The names of the fields that are read."""

    __slots__ = ("_by_bytes", "_longest")

    def __init__(self, names: Iterable[str]) -> None:
        self._by_bytes = {name.encode(): name for name in names}
        # Each byte of a name has three characters at most.
        self._longest = 3 * max(map(len, self._by_bytes), default=0)

    def __bool__(self) -> bool:
        return bool(self._by_bytes)

    def find(self, raw: bytes) -> str | None:
        """The name that ``raw`` stands for, if it is one of these."""
        if b"%" not in raw and b"+" not in raw:
            return self._by_bytes.get(raw)
        return self._by_bytes.get(_bytes_of(raw)) if len(raw) <= self._longest else None


def read_fields(raw: bytes, names: Names | None) -> Iterator[tuple[str, str]]:
    """The fields of these names in their order (None: all), decoded; a percent sign that begins no escape stays.

    Raises:
        BadFieldError: one of them is not UTF-8, percent-encoded or as it is.
    """
    for piece in raw.split(b"&"):
        if not piece:
            continue
        raw_name, _, value = piece.partition(b"=")
        name = _text(raw_name, "") if names is None else names.find(raw_name)
        if name is not None:
            yield name, _text(value, name)


def _bytes_of(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))


def _text(raw: bytes, name: str) -> str:
    try:
        # UTF-8 that is not percent-encoded is what curl sends of what was typed, and what browsers read (section 5.1).
        return (_bytes_of(raw) if b"%" in raw or b"+" in raw else raw).decode()
    except UnicodeDecodeError as error:
        raise BadFieldError(name) from error
