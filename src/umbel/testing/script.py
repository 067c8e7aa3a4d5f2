"""Scripts: what a scripted upstream does with the requests that it gets, one after the other.

A script is a row of *turns*. Each request takes the next turn: the upstream waits for the turn's pause, and then
answers, fails or hangs. The last turn is repeated for all further requests. Two operations make scripts of scripts:

- ``a.then(b)``: first a, then b. ``fail("reset").then(json({}))`` resets the first request and answers the others.
  A delay takes no request, so ``delay(0.3).then(json({}))`` answers each request after 0.3 seconds.
- ``a.times(n)``: a, n times.

Scripts are values: they never change, and one script may serve several upstreams, each from its beginning.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import httpx
import msgspec

if TYPE_CHECKING:
    from .received import UpstreamRequest

Function = Callable[["UpstreamRequest"], "Awaitable[Script | httpx.Response] | Script | httpx.Response"]
"""A function that answers requests."""
FailureName = Literal[
    "connect", "connect-timeout", "dns", "tls", "reset", "timeout", "malformed", "too-big", "bad-body"
]
"""The failures that an upstream can cause."""

CONNECTING: frozenset[FailureName] = frozenset({"connect", "connect-timeout", "dns", "tls"})
"""The failures before a request is sent."""
Headers = Mapping[str, str] | Sequence[tuple[str, str]]
"""Header fields by name, or as pairs where a name occurs several times."""


@dataclass(frozen=True, slots=True)
class ScriptedResponse:
    """A response, sent as a whole or in pieces."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes | tuple[Piece, ...]
    """Bytes are sent with Content-Length; other bodies with chunked transfer coding."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure of the connection, or a response that cannot be used."""

    name: FailureName


@dataclass(frozen=True, slots=True)
class Computed:
    """An answer that a function makes of the request."""

    function: Function


Answer = ScriptedResponse | Failure | Computed


@dataclass(frozen=True, slots=True)
class Turn:
    """What happens to one request."""

    pause: float
    """Seconds before the answer."""
    answer: Answer


@dataclass(frozen=True, slots=True)
class Script:
    """What an upstream does with its requests, in order; see the module."""

    turns: tuple[Turn, ...] = ()
    pause: float = 0.0
    """Seconds that the following turn waits in addition: a delay behind which nothing stands yet."""

    def then(self, following: Script | Function) -> Script:
        """This script, and then ``following``, a script or a function."""
        after = as_script(following)
        if not after.turns:
            return Script(self.turns, self.pause + after.pause)
        first, *rest = after.turns
        return Script((*self.turns, replace(first, pause=self.pause + first.pause), *rest), after.pause)

    def times(self, count: int) -> Script:
        """This script, ``count`` times one after the other.

        Raises:
            ValueError: ``count`` is less than 1.
        """
        if count < 1:
            raise ValueError("times needs a number of at least 1")
        repeated = self
        for _ in range(count - 1):
            repeated = repeated.then(self)
        return repeated


Piece = bytes | Script
"""A part of a streamed body: bytes, a delay, ``fail("reset")``, or ``hang()``."""


def as_script(handler: Script | Function) -> Script:
    """The script of ``handler``.

    Raises:
        TypeError: it is neither a script nor a function.
    """
    if isinstance(handler, Script):
        return handler
    if callable(handler):
        return Script((Turn(0.0, Computed(handler)),))
    raise TypeError(
        f"{handler!r} is neither a scripted answer, such as json({{}}), nor a function that takes a request"
    )


def response(body: bytes | tuple[Piece, ...], status: int, headers: Headers, media_type: str | None) -> Script:
    """A script of one response. ``media_type``: the Content-Type unless ``headers`` has one.

    Raises:
        TypeError: ``status`` is no whole number, or a header field is no text.
        ValueError: ``status`` is no final status, or a header field has a line break.
    """
    if not isinstance(status, int):
        raise TypeError(f"a status is a whole number, and {status!r} is none")
    if not 200 <= status <= 999:
        raise ValueError(f"{status} is no final status; it must be from 200 to 999")
    named = httpx.Headers(headers if isinstance(headers, Mapping) else list(headers))
    for name, value in named.raw:
        if b"\r" in value or b"\n" in value:
            raise ValueError(f"the value of the header field {name.decode()!r} has a line break")
    if media_type is not None:
        named.setdefault("content-type", media_type)
    return Script((Turn(0.0, ScriptedResponse(status, tuple(named.raw), body)),))


def json(value: Any, status: int = 200, *, headers: Headers = ()) -> Script:
    """Answer with ``value`` as JSON."""
    return response(msgspec.json.encode(value), status, headers, "application/json")


def text(body: str, status: int = 200, *, headers: Headers = ()) -> Script:
    """Answer with a text in UTF-8.

    Raises:
        TypeError: ``body`` is no text.
    """
    if not isinstance(body, str):
        raise TypeError(f"text() takes a text, and {body!r} is none; for bytes there is content(), for data json()")
    return response(body.encode(), status, headers, "text/plain; charset=utf-8")


def content(body: bytes = b"", status: int = 200, *, headers: Headers = ()) -> Script:
    """Answer with bytes as they are. Without a Content-Type in ``headers`` the response has none.

    Raises:
        TypeError: ``body`` is not bytes.
    """
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"content() takes bytes, and {body!r} is none; for a text there is text(), for data json()")
    return response(bytes(body), status, headers, None)


def stream(*pieces: bytes | str | Script, status: int = 200, headers: Headers = ()) -> Script:
    """Answer with a body that is sent piece by piece.

    Args:
        pieces: bytes or texts to send, ``delay(…)`` for a wait between them, and as the last piece ``fail("reset")``,
            which breaks the connection, or ``hang()``, which sends nothing more.
        status: the status.
        headers: the header fields.

    Raises:
        TypeError: a piece is something else.
        ValueError: a piece is another script, or one stands behind ``fail`` or ``hang``.
    """
    return response(_checked(pieces), status, headers, None)


def _checked(pieces: Sequence[bytes | str | Script]) -> tuple[Piece, ...]:
    ends = fail("reset"), hang()
    for number, piece in enumerate(pieces, 1):
        if not isinstance(piece, bytes | str | Script):
            raise TypeError(
                f"a stream has bytes, texts and delays, and {piece!r} is none of them; a function of the upstream can "
                "return an httpx.Response whose content is an async iterator"
            )
        if isinstance(piece, Script) and piece.turns and (piece not in ends or number < len(pieces)):
            raise ValueError('a stream has bytes, texts and delays, and fail("reset") or hang() only as its end')
    return tuple(piece.encode() if isinstance(piece, str) else piece for piece in pieces)


def sse(*events: str | Mapping[str, Any] | Script, headers: Headers = ()) -> Script:
    """Answer with server-sent events.

    Args:
        events: a text is the data of an event; a mapping has its fields (``event``, ``id``, ``retry``, ``data``; other
            data than a text is sent as JSON); ``delay``, ``fail`` and ``hang`` as for ``stream``.
        headers: the header fields.

    Raises:
        ValueError: as for ``stream``.
    """
    pieces = [each if isinstance(each, Script) else _event(each) for each in events]
    return response(_checked(pieces), 200, headers, "text/event-stream")


def _event(event: str | Mapping[str, Any]) -> str:
    fields = {"data": event} if isinstance(event, str) else event
    lines = []
    for name, value in fields.items():
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        lines += [f"{name}: {line}\n" for line in shown.split("\n")]
    return "".join(lines) + "\n"


def fail(name: FailureName) -> Script:
    """Fail, so that the call has the failure kind of this name.

    ========================  ==========================================================================================
    ``"connect"``             the connection is refused
    ``"connect-timeout"``     the connection is never made; the upstream's ``connect_timeout`` passes (kind ``connect``)
    ``"dns"``                 the name of the upstream's host has no address
    ``"tls"``                 the TLS handshake fails
    ``"reset"``               the connection is reset before the first byte of the response
    ``"timeout"``             nothing comes (as ``hang``); the call's timeout or the request's deadline passes
    ``"malformed"``           the response is no HTTP
    ``"too-big"``             the response declares a body of a terabyte
    ``"bad-body"``            the response is declared as JSON and is none
    ========================  ==========================================================================================

    The first four concern new connections, and so does ``"reset"``: the upstream closes its kept connections before.
    (A kept connection that is reset is no failure of a call: the gateway sends the request again on a new one.)

    Raises:
        ValueError: an upstream cannot cause a failure of this name.
    """
    if name not in get_args(FailureName):
        raise ValueError(f"an upstream cannot cause {name!r}; it can cause {', '.join(get_args(FailureName))}")
    if name == "bad-body":
        return response(b"{", 200, {}, "application/json")
    return Script((Turn(0.0, Failure(name)),))


def delay(seconds: float) -> Script:
    """Wait for ``seconds`` of virtual time before what follows: ``delay(0.3).then(json({}))``.

    Raises:
        TypeError: ``seconds`` is no number.
        ValueError: ``seconds`` is negative or infinite.
    """
    if not isinstance(seconds, int | float):
        raise TypeError(f"a delay takes a number of seconds, such as delay(0.3), and {seconds!r} is none")
    if not 0 <= seconds < float("inf"):
        raise ValueError("a delay takes a number of seconds from 0; hang() never ends")
    return Script((), seconds)


def hang() -> Script:
    """Take the request and never answer. The gateway's own time limits end the call."""
    return fail("timeout")


class Position:
    """A place in a script: which turn the next request gets."""

    def __init__(self, script: Script) -> None:
        """Begin at the first turn.

        Raises:
            ValueError: the script has no answer, or a delay is its end.
        """
        if not script.turns or script.pause:
            raise ValueError("a script ends with an answer: write what follows the delay, as delay(0.3).then(json({}))")
        self.turns: Sequence[Turn] = script.turns
        self._next = 0
        self._used: set[int] = set()
        """The turns behind the next one that are used up already."""

    def coming(self, ahead: int = 0) -> Turn:
        """The turn of the next request, or of the one that is ``ahead`` requests after it."""
        return self.turns[self._index(ahead)]

    def take(self, ahead: int = 0) -> Turn:
        """The turn ``coming(ahead)``, which is used up with that, unless it is the last one."""
        index = self._index(ahead)
        if index < len(self.turns) - 1:
            self._used.add(index)
            while self._next in self._used:
                self._used.remove(self._next)
                self._next += 1
        return self.turns[index]

    def _index(self, ahead: int) -> int:
        index, last = self._next, len(self.turns) - 1
        while index < last and (ahead or index in self._used):
            ahead -= index not in self._used
            index += 1
        return index
