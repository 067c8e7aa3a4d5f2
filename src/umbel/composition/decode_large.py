"""Piecewise JSON decoding in a thread, for bodies with so many values that they would block the event loop.

msgspec holds the GIL while it decodes, in any thread. So a text of many values is cut between the members of its lists
and objects into pieces of some 64 KiB, and each piece is decoded by itself, by the decoder of small bodies. Between two
pieces, and between two commas, other threads have their turn (Python's switch interval is 5 ms).

The last comma of a piece that stands outside of texts, and outside of what begins and ends within the piece, is a
cut. The containers that are open there are made by hand (``_OpenContainer``), outermost first. Each byte is decoded
once, whatever the nesting, and looked at ``_PASSES`` times at most.
"""

from __future__ import annotations

import re
from typing import Any

import trio

from ..core.model import Json
from .decode import MAX_DEPTH, MAX_VALUES, BadBodyError, count_separators, decode_strict, deeper_than, repair_json

_PIECE = 64 * 1024
"""The size of a piece in bytes: decoding one takes 20 ms at most."""
_VALUE_BYTES = 5
"""Bytes of ``max_body`` that allow one more value."""
_PASSES = 8
"""How many levels of nesting within a piece are skipped by a regular expression; deeper brackets are read singly."""
_GROUP = re.compile(rb"\[[^\[\]{}]*\]|\{[^\[\]{}]*\}")
_BRACKET = re.compile(rb"[\[\]{}]")
_BAD = "the body is not valid JSON"
_DEEP = f"the JSON is nested more than {MAX_DEPTH} deep"

_threads: trio.lowlevel.RunVar[trio.CapacityLimiter | None] = trio.lowlevel.RunVar("decoding", None)


def values_allowed(max_body: int) -> int:
    """The maximum number of values of a JSON text; it grows with ``max_body``."""
    return max(MAX_VALUES, max_body // _VALUE_BYTES)


def holds_many_values(body: bytes, max_body: int) -> bool:
    """Whether a JSON text is to be decoded by ``decode_in_thread``: it is allowed to, and may, hold so many values."""
    return max_body > MAX_VALUES * _VALUE_BYTES and len(body) > MAX_VALUES and count_separators(body) > MAX_VALUES


async def decode_in_thread(body: bytes, max_body: int, charset: str | None = None) -> Json:
    """Decode a JSON text of up to ``values_allowed`` values in a thread; the event loop runs on meanwhile.

    One body at a time. Cancelled, it abandons its thread, which ends when the body is decoded.

    Raises:
        BadBodyError: as ``decode_json``.
    """
    limiter = _threads.get()
    if limiter is None:
        limiter = trio.CapacityLimiter(1)
        _threads.set(limiter)
    value, reason = await trio.to_thread.run_sync(
        _decoded_or_reason, body, max_body, charset, abandon_on_cancel=True, limiter=limiter
    )
    if reason is not None:
        raise BadBodyError(reason)
    return value


def _decoded_or_reason(body: bytes, max_body: int, charset: str | None) -> tuple[Json, str | None]:
    """Run ``decode_pieces`` and return its value, or the message of its error, instead of raising.

    An error that passes from one thread to another becomes part of a cycle, and its frames would keep the body until a
    garbage collection.
    """
    try:
        return decode_pieces(body, max_body, charset), None
    except BadBodyError as error:
        return None, str(error)


def decode_pieces(body: bytes, max_body: int, charset: str | None = None) -> Json:
    """Decode a JSON text piece by piece.

    Raises:
        BadBodyError: as ``decode_json``.
    """
    allowed = values_allowed(max_body)
    try:
        return _PieceDecoder(body, allowed).value()
    except BadBodyError:
        # As decode_json: only a body that strict decoding refuses is repaired.
        repaired = repair_json(body, charset)
        if repaired is None:
            raise
    return _PieceDecoder(repaired, allowed).value()


def _blank_strings(piece: bytes) -> bytes:
    """A piece that begins and ends outside of strings, with every string blanked."""
    parts = piece.split(b'"')
    parts[1::2] = [b"_" * len(part) for part in parts[1::2]]
    return b"_".join(parts)


def _blank_groups(signs: bytes) -> bytes:
    """A piece with the lists and objects that begin and end within it blanked; deep nesting may stay."""
    for _ in range(_PASSES):
        signs, count = _GROUP.subn(_blank, signs)
        if not count:
            break
    return signs


def _blank(group: re.Match[bytes]) -> bytes:
    return b"_" * (group.end() - group.start())


class _OpenContainer:
    """A list or an object that is open. Once it is ``made`` by hand, ``since`` is where its next piece begins."""

    __slots__ = ("after", "begins", "is_list", "key_at", "made", "since")

    def __init__(self, begins: int, is_list: bool) -> None:
        self.begins = begins
        self.is_list = is_list
        self.key_at = 0
        """The position of its key, if it is in an object; known once it is made by hand."""
        self.made: Any = None
        self.since = begins + 1
        self.after = _NOTHING

    def begin(self) -> None:
        if self.made is None:
            self.made = [] if self.is_list else {}

    def add(self, text: bytes, *, needed: bool) -> None:
        """Decode whole members without the comma behind them; where they are ``needed``, there is one at least."""
        if not text.strip(_SPACE):
            if needed:
                raise BadBodyError(_BAD)
            return
        if self.is_list:
            self.made += decode_strict(b"[" + text + b"]")
        else:
            self.made.update(decode_strict(b"{" + text + b"}"))

    def rest(self, body: bytes, until: int) -> bytes:
        """The text from ``since`` to ``until``, without the comma after a member that was made by hand."""
        text = body[self.since : until]
        if self.after is _MEMBER and (text := text.lstrip(_SPACE)):
            if text[:1] != b",":
                raise BadBodyError(_BAD)
            self.after, text = _COMMA, text[1:]
        return text


_NOTHING, _COMMA, _MEMBER = range(3)
"""What stands before ``since``: the bracket, a comma, or a member that was made by hand."""
_SPACE = b" \t\r\n"


class _PieceDecoder:
    """Decoder of one JSON text, a piece at a time."""

    def __init__(self, body: bytes, allowed: int) -> None:
        self._body = body
        self._allowed = allowed
        self._values = 1
        self._blanked = body.replace(rb"\\", b"__").replace(rb"\"", b"__")
        """The same without escapes: each quote begins or ends a text."""
        self._open: list[_OpenContainer] = []
        self._result: Json = None
        self._deep = False
        """Whether its depth may be over the bound."""

    def value(self) -> Json:
        """Decode the text.

        Raises:
            BadBodyError: it is no JSON, or past a bound.
        """
        start, size = 0, len(self._body)
        while start < size:
            end = self._blanked.find(b'"', start + _PIECE) if self._ends_in_text(start) else start + _PIECE - 1
            if end < 0:
                raise BadBodyError(_BAD)
            signs = _blank_strings(self._blanked[start : end + 1])
            self._values += count_separators(signs) - 1
            if self._values > self._allowed:
                raise BadBodyError(f"the JSON holds more than {self._allowed} values; a larger max_body allows more")
            signs = _blank_groups(signs)
            cut = signs.rfind(b",")
            for token in _BRACKET.finditer(signs):
                at = token.start()
                if 0 <= cut < at:
                    self._take(start + cut)
                    cut = -1
                self._see(token[0], start + at)
            if cut >= 0:
                self._take(start + cut)
            start = end + 1
        if self._open:
            raise BadBodyError(_BAD)
        if self._result is None:
            return decode_strict(self._body)  # a lone text or number
        if self._deep and deeper_than(self._result, MAX_DEPTH):
            raise BadBodyError(_DEEP)
        return self._result

    def _ends_in_text(self, start: int) -> bool:
        return self._blanked.count(b'"', start, start + _PIECE) % 2 == 1

    def _see(self, sign: bytes, at: int) -> None:
        """Handle a bracket whose partner is in another piece, or was not blanked."""
        stack = self._open
        if sign in b"[{":
            if not stack and (self._result is not None or self._body[:at].strip(_SPACE)):
                raise BadBodyError(_BAD)
            stack.append(_OpenContainer(at, sign == b"["))
            self._deep = self._deep or len(stack) + _PASSES >= MAX_DEPTH
            if len(stack) > MAX_DEPTH:
                raise BadBodyError(_DEEP)
        elif not stack or stack[-1].is_list is not (sign == b"]"):
            raise BadBodyError(_BAD)
        elif stack[-1].made is None and len(stack) > 1:
            stack.pop()  # It lies between two cuts.
        else:
            made = self._end(at)
            if not stack:
                if self._body[at + 1 :].strip(_SPACE):
                    raise BadBodyError(_BAD)
                self._result = made

    def _take(self, at: int) -> None:
        """Decode what stands before the comma at ``at``; every container that is open there is made by hand."""
        if not self._open:
            raise BadBodyError(_BAD)
        for outer, inner in zip(self._open, self._open[1:], strict=False):
            outer.begin()
            if inner.made is None:
                self._enter(outer, inner)
        container = self._open[-1]
        container.begin()
        text = container.rest(self._body, at)
        container.add(text, needed=container.after is not _MEMBER)
        container.since, container.after = at + 1, _COMMA

    def _enter(self, outer: _OpenContainer, inner: _OpenContainer) -> None:
        """Decode what stands in ``outer`` before ``inner``, which is its next member."""
        if not outer.is_list:
            # The text that ends nearest before it; whether it is the key, and all that stands there, the decoder says.
            closing = self._blanked.rfind(b'"', outer.since, inner.begins)
            inner.key_at = self._blanked.rfind(b'"', outer.since, closing)
            if inner.key_at < 0:
                raise BadBodyError(_BAD)
        text = outer.rest(self._body, inner.begins if outer.is_list else inner.key_at).rstrip(_SPACE)
        if outer.after is _MEMBER:
            raise BadBodyError(_BAD)  # no comma between two members
        if text:
            if text[-1:] != b",":
                raise BadBodyError(_BAD)
            outer.add(text[:-1], needed=True)
        inner.begin()

    def _end(self, at: int) -> Json:
        """Close the innermost container, whose bracket stands at ``at``; its value."""
        ended = self._open.pop()
        ended.begin()
        text = ended.rest(self._body, at)
        ended.add(text, needed=ended.after is _COMMA)
        if self._open:
            parent = self._open[-1]
            if parent.is_list:
                parent.made.append(ended.made)
            else:
                (key,) = decode_strict(b"{" + self._body[ended.key_at : ended.begins] + b"null}")
                parent.made[key] = ended.made
            parent.since, parent.after = at + 1, _MEMBER
        return ended.made
