"""Decoding of a JSON text piece by piece in a thread, for bodies whose many values would block the event loop.

Theory
------
**Problem.** msgspec holds the GIL while it decodes, in any thread. So a large text is cut into pieces of some 64 KiB,
and each piece is decoded by itself. Between two pieces other threads can run (Python's switch interval is 5 ms).

**Where a piece ends.** ``_PieceDecoder.value`` reads ``_PIECE`` bytes, and more up to the end of a string. It blanks
the strings in them, then up to ``_PASSES`` levels of the lists and objects that begin and end within them. The last
comma that is left, if there is one, is the *cut*: it separates two members of a container that is open there. The text
after the cut is decoded later: at the next cut, or at a closing bracket (see "Ends").

**Open containers.** A container that is not complete within one piece is an ``_OpenContainer``, on a stack with the
outermost first. When a cut is taken, every container on the stack is *made*: an empty list or object is created, and
its complete members before the cut are decoded into it (``add``). ``since`` is the position of its first byte that is
not decoded, and ``after`` says what stands before ``since``: the bracket, a comma, or a member that was itself an open
container. Both are valid only while no made container is open within this one. By ``after`` the decoder refuses what
strict JSON refuses: a missing comma, a comma too many.

**Ends.** At the closing bracket of a made container, or of the outermost one, the rest of the container is decoded
(``_end``). It becomes a member of the container around it; the outermost one is the result. A container without a cut
in it is not made: at its closing bracket it is dropped from the stack, and later decoded with the text around it.

**Cost.** Each byte is decoded once, whatever the nesting, and scanned a fixed number of times: ``_PASSES`` and a few. A
text that needs repair is decoded once more, from its beginning.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import trio

from ..core.model import Json
from .decode import MAX_DEPTH, MAX_VALUES, BadBodyError, count_separators, decode_strict, deeper_than, repair_json

_PIECE = 64 * 1024
"""The size of a piece in bytes: decoding one takes 20 ms at most."""
_VALUE_BYTES = 5
"""The bytes of ``max_body`` for each allowed value."""
_PASSES = 8
"""The levels of nesting that a regular expression blanks within a piece; deeper brackets are handled one by one."""
_GROUP = re.compile(rb"\[[^\[\]{}]*\]|\{[^\[\]{}]*\}")
_BRACKET = re.compile(rb"[\[\]{}]")
_BAD = "the body is not valid JSON"
_DEEP = f"the JSON is nested more than {MAX_DEPTH} deep"

_threads: trio.lowlevel.RunVar[trio.CapacityLimiter | None] = trio.lowlevel.RunVar("decoding", None)


def values_allowed(max_body: int) -> int:
    """The most values of a JSON text in a body of at most ``max_body`` bytes."""
    return max(MAX_VALUES, max_body // _VALUE_BYTES)


def holds_many_values(body: bytes, max_body: int) -> bool:
    """Whether a JSON text needs ``decode_in_thread``: it may hold, and is allowed, more than ``MAX_VALUES`` values."""
    return max_body > MAX_VALUES * _VALUE_BYTES and len(body) > MAX_VALUES and count_separators(body) > MAX_VALUES


async def decode_in_thread(body: bytes, max_body: int, charset: str | None = None) -> Json:
    """Decode a JSON text in a thread, while the event loop runs on.

    One body is decoded at a time; further callers wait. Cancelled, it abandons the thread, which ends at its next
    piece; the next body waits for that. So there is at most one thread, abandoned or not.

    Args:
        max_body: the bound of the body in bytes; ``values_allowed`` derives the bound of its values from it.
        charset: the charset of the Content-Type; None: it names none.

    Raises:
        BadBodyError: the body is no JSON, or exceeds a bound (as in ``decode_json``).
    """
    limiter = _threads.get()
    if limiter is None:
        limiter = trio.CapacityLimiter(1)
        _threads.set(limiter)
    abandoned = threading.Event()
    try:
        value, reason = await trio.to_thread.run_sync(
            _decoded_or_reason, body, max_body, charset, abandoned.is_set, abandon_on_cancel=True, limiter=limiter
        )
    except trio.Cancelled:
        abandoned.set()
        raise
    if reason is not None:
        raise BadBodyError(reason)
    return value


class _AbandonedError(Exception):
    """Nobody waits for the value any more."""


def _decoded_or_reason(
    body: bytes, max_body: int, charset: str | None, is_abandoned: Callable[[], bool]
) -> tuple[Json, str | None]:
    """Run ``decode_pieces``, and return its value, or the message of its error.

    It must not raise: an exception that passes to another thread becomes part of a reference cycle, and its frames
    would keep the body in memory until a garbage collection.
    """
    try:
        return decode_pieces(body, max_body, charset, is_abandoned), None
    except BadBodyError as error:
        return None, str(error)
    except _AbandonedError:
        return None, "abandoned"


def decode_pieces(
    body: bytes, max_body: int, charset: str | None = None, is_abandoned: Callable[[], bool] = lambda: False
) -> Json:
    """Decode a JSON text piece by piece. Blocks.

    Args:
        is_abandoned: called before each piece; if it returns True, nobody waits for the value.

    Raises:
        BadBodyError: the body is no JSON, or exceeds a bound (as in ``decode_json``).
        _AbandonedError: ``is_abandoned`` has returned True.
    """
    allowed = values_allowed(max_body)
    try:
        return _PieceDecoder(body, allowed, is_abandoned).value()
    except BadBodyError:
        # As in decode_json, a body is searched for repairs only after strict decoding has refused it.
        repaired = repair_json(body, charset)
        if repaired is None:
            raise
    return _PieceDecoder(repaired, allowed, is_abandoned).value()


def _blank_strings(piece: bytes) -> bytes:
    """Blank every string of a piece that begins and ends outside of strings. The length stays the same."""
    parts = piece.split(b'"')
    parts[1::2] = [b"_" * len(part) for part in parts[1::2]]
    return b"_".join(parts)


def _blank_groups(signs: bytes) -> bytes:
    """Blank the lists and objects that begin and end within a piece, up to ``_PASSES`` levels of nesting."""
    for _ in range(_PASSES):
        signs, count = _GROUP.subn(_blank, signs)
        if not count:
            break
    return signs


def _blank(group: re.Match[bytes]) -> bytes:
    return b"_" * (group.end() - group.start())


class _OpenContainer:
    """A list or an object whose closing bracket has not been reached. See the theory."""

    __slots__ = ("after", "begins", "is_list", "key_at", "made", "since")

    def __init__(self, begins: int, is_list: bool) -> None:
        self.begins = begins
        """The position of its opening bracket."""
        self.is_list = is_list
        self.key_at = 0
        """The position of its key, if it is a member of an object; valid once the container is made."""
        self.made: Any = None
        """The list or the dict with the members decoded so far; None: not made."""
        self.since = begins + 1
        """The position of the first byte that is not decoded."""
        self.after = _NOTHING
        """What stands before ``since``: ``_NOTHING``, ``_COMMA`` or ``_MEMBER``."""

    def begin(self) -> None:
        if self.made is None:
            self.made = [] if self.is_list else {}

    def add(self, text: bytes, *, needed: bool) -> None:
        """Decode complete members, separated by commas. ``needed``: at least one member must be there."""
        if not text.strip(_SPACE):
            if needed:
                raise BadBodyError(_BAD)
            return
        if self.is_list:
            self.made += decode_strict(b"[" + text + b"]")
        else:
            self.made.update(decode_strict(b"{" + text + b"}"))

    def rest(self, body: bytes, until: int) -> bytes:
        """The text from ``since`` to ``until``, without the comma after a member that was an open container."""
        text = body[self.since : until]
        if self.after is _MEMBER and (text := text.lstrip(_SPACE)):
            if text[:1] != b",":
                raise BadBodyError(_BAD)
            self.after, text = _COMMA, text[1:]
        return text


_NOTHING, _COMMA, _MEMBER = range(3)
"""What stands before ``_OpenContainer.since``: the bracket, a comma, or a member that was an open container."""
_SPACE = b" \t\r\n"


class _PieceDecoder:
    """Decoder of one JSON text, a piece at a time."""

    def __init__(self, body: bytes, allowed: int, is_abandoned: Callable[[], bool]) -> None:
        self._body = body
        self._allowed = allowed
        self._is_abandoned = is_abandoned
        self._values = 1
        self._blanked = body.replace(rb"\\", b"__").replace(rb"\"", b"__")
        """The text with escapes blanked: each quote in it begins or ends a string."""
        self._open: list[_OpenContainer] = []
        self._result: Json = None
        self._deep = False
        """Whether the depth may exceed ``MAX_DEPTH``."""

    def value(self) -> Json:
        """Decode the text.

        Raises:
            BadBodyError: the text is no JSON, or exceeds a bound.
        """
        start, size = 0, len(self._body)
        while start < size:
            if self._is_abandoned():
                raise _AbandonedError
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
            return decode_strict(self._body)  # A text without any container: one string or number.
        if self._deep and deeper_than(self._result, MAX_DEPTH):
            raise BadBodyError(_DEEP)
        return self._result

    def _ends_in_text(self, start: int) -> bool:
        return self._blanked.count(b'"', start, start + _PIECE) % 2 == 1

    def _see(self, sign: bytes, at: int) -> None:
        """Handle a bracket that was not blanked: its partner is in another piece, or it is nested too deeply."""
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
            stack.pop()  # Complete between two cuts: it is decoded with the text of the container around it.
        else:
            made = self._end(at)
            if not stack:
                if self._body[at + 1 :].strip(_SPACE):
                    raise BadBodyError(_BAD)
                self._result = made

    def _take(self, at: int) -> None:
        """Take the comma at ``at`` as a cut: make every open container, and decode all members before the comma."""
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
        """Decode the members of ``outer`` before its member ``inner``, and make ``inner``."""
        if not outer.is_list:
            # The last string before ``inner`` is its key. If the text between is wrong, decoding it will refuse it.
            closing = self._blanked.rfind(b'"', outer.since, inner.begins)
            inner.key_at = self._blanked.rfind(b'"', outer.since, closing)
            if inner.key_at < 0:
                raise BadBodyError(_BAD)
        text = outer.rest(self._body, inner.begins if outer.is_list else inner.key_at).rstrip(_SPACE)
        if outer.after is _MEMBER:
            raise BadBodyError(_BAD)  # No comma between two members.
        if text:
            if text[-1:] != b",":
                raise BadBodyError(_BAD)
            outer.add(text[:-1], needed=True)
        inner.begin()

    def _end(self, at: int) -> Json:
        """Close the innermost container at its bracket at ``at``, and return its value."""
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
