"""Scripted upstreams: HTTP/1.1 servers in memory, whose answers come from scripts and functions.

Theory
------
The gateway's pool dials, and gets one end of a connection in memory; a task serves the other end. HTTP is read and
written by h11, so that the gateway's own reader and writer meet another implementation.

*Turns.* A turn of a script is taken when a request has arrived as a whole. A failure of connecting has no request, so
it is taken when the pool dials. The pool dials only if it has no idle connection. So before such a turn an upstream
closes its connections: with ``Connection: close`` in the response before, or without an answer if a request comes on
another kept connection. The same holds before a reset, because the pool itself repeats a request whose kept connection
is reset.

*The gateway closes a connection* when it has cancelled an attempt. The task that serves the connection is then
cancelled, wherever it waits, also within a function of the test.

*Errors of the test* (a function raises, an upstream has no script) must not become failures of an upstream, which a
gateway handles. They end the test: ``ScriptedUpstreams`` raises them in its nursery.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import httpx
import trio

from ..net.memory_stream import MemoryReader, MemoryStream, memory_stream_pair
from ..upstream.aclosing_iter import pieces_of
from ..upstream.errors import ConnectFailed, ConnectTimedOut, HandshakeFailed, NameFailed
from ..upstream.pool.dial import Dial
from ..upstream.replicas.origin import Origin
from .received import UpstreamRequest
from .script import (
    CONNECTING,
    Answer,
    Computed,
    Failure,
    Function,
    Piece,
    Position,
    Script,
    ScriptedResponse,
    as_script,
)

try:
    import h11
except ImportError as error:
    raise ImportError("umbel.testing needs the library h11; run pip install 'umbel[testing]'") from error

Handler = Script | Function | Mapping[str, "Script | Function"]
"""What answers the requests of an upstream: a script, a function, or one of them for each path."""

REQUEST_BYTES_MAX = 64 * 2**20
"""The bound on the body of a request that a scripted upstream keeps."""
_TERABYTE = 10**12


class UnscriptedRequestError(AssertionError):
    """The gateway has made a request for which the test has no answer."""


class _Upstream:
    """One upstream: its scripts with their positions, and the requests that it got."""

    def __init__(self, name: str, handler: Handler) -> None:
        self.name = name
        self.received: list[UpstreamRequest] = []
        if isinstance(handler, Mapping):
            self._whole: Position | None = None
            self._by_path = {key: Position(as_script(each)) for key, each in handler.items()}
            for key, position in self._by_path.items():
                if any(is_connecting(turn.answer) for turn in position.turns):
                    raise ValueError(f"the answer for {key!r} fails before a request is sent, so it has no path")
        else:
            self._whole = Position(as_script(handler))
            self._by_path = {}

    def position(self, request: UpstreamRequest) -> Position:
        """The script for ``request``.

        Raises:
            UnscriptedRequestError: there is none.
        """
        if self._whole is not None:
            return self._whole
        for key in (f"{request.method} {request.path}", request.path):
            if (found := self._by_path.get(key)) is not None:
                return found
        known = ", ".join(self._by_path) or "none"
        raise UnscriptedRequestError(
            f"the upstream {self.name!r} has no answer for {request.method} {request.path}; it has answers for {known}"
        )

    def take_refusal(self) -> tuple[float, Failure] | None:
        """The pause and the failure of the coming turn, if it concerns connections; it is used up then."""
        if self._whole is None or not is_connecting(answer := self._whole.coming.answer):
            return None
        assert isinstance(answer, Failure)
        return self._whole.take().pause, answer

    def ends_connection(self, *, kept: bool = True) -> bool:
        """Whether the coming turn cannot begin on a connection that is open; ``kept``: that has had a request."""
        if self._whole is None:
            return False
        answer = self._whole.coming.answer
        return is_connecting(answer) or (kept and answer == Failure("reset"))


def is_connecting(answer: Answer) -> bool:
    """Whether an answer is a failure before a request is sent."""
    return isinstance(answer, Failure) and answer.name in CONNECTING


class ScriptedUpstreams:
    """The upstreams of a test. ``nursery`` serves their connections.

    Args:
        handlers: what answers, by name of the upstream.
        reader: watches the connections.
        nursery: its tasks serve connections, and raise errors of the test.
    """

    def __init__(self, handlers: Mapping[str, Handler], reader: MemoryReader, nursery: trio.Nursery) -> None:
        self._reader = reader
        self._nursery = nursery
        self._upstreams = {name: _Upstream(name, handler) for name, handler in handlers.items()}

    def received(self, name: str) -> Sequence[UpstreamRequest]:
        """The requests that an upstream got, in the order of their arrival.

        Raises:
            KeyError: there is no scripted upstream of this name.
        """
        if name not in self._upstreams:
            raise KeyError(f"the test has no upstream {name!r}; it has {', '.join(self._upstreams) or 'none'}")
        return self._upstreams[name].received

    def dial_for(self, name: str) -> Dial:
        """The function that connects to the upstream ``name``."""

        async def dial(origin: Origin, timeout: float | None) -> MemoryStream:
            await trio.lowlevel.checkpoint()
            upstream = self._upstreams.get(name)
            if upstream is None:
                text = f"the upstream {name!r} was called, and the test has no answer for it: name it in upstreams"
                await self._end_test(UnscriptedRequestError(text))
            if (refusal := upstream.take_refusal()) is not None:
                await _refuse(*refusal, origin, math.inf if timeout is None else timeout)
            ours, theirs = memory_stream_pair(self._reader)
            self._nursery.start_soon(self._serve, upstream, origin, theirs, name=f"scripted upstream {name}")
            return ours

        return dial

    async def _end_test(self, error: Exception) -> NoReturn:
        """Raise ``error`` in the nursery, so that it ends the test; this task is cancelled."""
        self._nursery.start_soon(_raise, error)
        while True:
            await trio.sleep_forever()

    async def _serve(self, upstream: _Upstream, origin: Origin, stream: MemoryStream) -> None:
        """Serve one connection until it is closed."""
        try:
            with trio.CancelScope() as scope:
                stream.on_end = lambda _broken: scope.cancel(reason="the gateway has closed the connection")
                connection, kept = _ServerConnection(stream), False
                while (request := await connection.next_request(upstream.name, origin)) is not None:
                    if upstream.ends_connection(kept=kept):
                        stream.reset_on_close()
                        return
                    upstream.received.append(request)
                    turn = upstream.position(request).take()
                    await trio.sleep(turn.pause)
                    await connection.answer(turn.answer, request, upstream.ends_connection)
                    kept = True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The gateway has closed the connection.
        finally:
            stream.close()


async def _raise(error: Exception) -> None:
    raise error


async def _refuse(pause: float, failure: Failure, origin: Origin, timeout: float) -> NoReturn:
    """Fail to connect, after ``pause`` seconds or when the timeout passes.

    Raises:
        UpstreamError: of the kind of the failure.
    """
    where = origin.where
    if failure.name == "connect-timeout" or pause >= timeout:
        await trio.sleep(timeout)
        raise ConnectTimedOut(f"{where}: the connect timeout has passed")
    await trio.sleep(pause)
    if failure.name == "dns":
        raise NameFailed(f"the name {origin.host} has no address")
    if failure.name == "tls":
        raise HandshakeFailed(f"{where}: the TLS handshake failed")
    raise ConnectFailed(f"cannot connect to {where}: connection refused")


class _ServerConnection:
    """The upstream's end of one connection."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)

    async def next_request(self, upstream: str, origin: Origin) -> UpstreamRequest | None:
        """Receive the next request; None if there is none, because the connection ends."""
        if self._h11.our_state is h11.MUST_CLOSE:
            return None
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        body = bytearray()
        while isinstance(part := await self._next_event(), h11.Data):
            body += part.data
            if len(body) > REQUEST_BYTES_MAX:
                raise ValueError(f"a request to the upstream {upstream!r} is larger than {REQUEST_BYTES_MAX} bytes")
        url = httpx.URL(scheme=origin.scheme, host=origin.host, port=origin.port, raw_path=head.target)
        fields = [(bytes(name), bytes(value)) for name, value in head.headers.raw_items()]
        return UpstreamRequest(
            head.method.decode("ascii"), url, fields, bytes(body), upstream=upstream, at=trio.current_time()
        )

    async def _next_event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self._h11.receive_data(await self._stream.receive_some())
        return event

    async def answer(
        self, answer: Answer | httpx.Response, request: UpstreamRequest, closes: Callable[[], bool]
    ) -> None:
        """Answer ``request``. ``closes``: asked when the head is sent: whether the connection ends with the response.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: the connection has ended.
        """
        if isinstance(answer, Computed):
            answer = await _computed(answer.function, request)
        if isinstance(answer, Failure):
            await self._fail(answer)
            return
        assert isinstance(answer, ScriptedResponse | httpx.Response), "a function gives another answer than itself"
        if isinstance(answer, httpx.Response):
            status, stream = answer.status_code, answer.stream
            fields = [field for field in answer.headers.raw if field[0].lower() not in _FRAMING]
            whole = b"".join(stream) if isinstance(stream, httpx.ByteStream) else None
        else:
            status, fields, stream = answer.status, [*answer.fields], None
            whole = answer.body if isinstance(answer.body, bytes) else None
        has_body = request.method != "HEAD" and status not in (204, 304)
        if whole is None and has_body:
            fields.append((b"Transfer-Encoding", b"chunked"))
        elif whole is not None and status not in (204, 304):
            fields.append((b"Content-Length", str(len(whole)).encode()))
        if closes():
            fields.append((b"Connection", b"close"))
        await self._send(h11.Response(status_code=status, headers=fields))
        if has_body:
            if whole is not None:
                await self._send_data(whole)
            elif isinstance(answer, ScriptedResponse):
                assert isinstance(answer.body, tuple)
                await self._send_pieces(answer.body)
            else:
                assert isinstance(stream, httpx.AsyncByteStream)
                async with pieces_of(stream) as pieces:
                    async for piece in pieces:
                        await self._send_data(piece)
        await self._send(h11.EndOfMessage())

    async def _send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send a streamed body. ``fail`` and ``hang`` do not return."""
        for piece in pieces:
            if isinstance(piece, bytes):
                await self._send_data(piece)
                continue
            await trio.sleep(piece.pause)
            for turn in piece.turns:
                assert isinstance(turn.answer, Failure)
                await self._fail(turn.answer)

    async def _fail(self, failure: Failure) -> None:
        """Do what a failure says."""
        match failure.name:
            case "reset":
                self._stream.reset_on_close()
                self._stream.close()
                raise trio.ClosedResourceError
            case "timeout":
                await trio.sleep_forever()
            case "malformed":
                await self._stream.send_all(b"this is no HTTP\r\n\r\n")
                raise trio.ClosedResourceError
            case "too-big":
                await self._stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % _TERABYTE)
                await trio.sleep_forever()
            case other:
                raise ValueError(f"fail({other!r}) comes before a request, so no function can return it")

    async def _send_data(self, data: bytes) -> None:
        if data:
            await self._send(h11.Data(data=data))

    async def _send(self, event: Any) -> None:
        data = self._h11.send(event)
        if data:
            await self._stream.send_all(data)


_FRAMING = frozenset({b"transfer-encoding", b"content-length", b"connection"})
"""Fields of an ``httpx.Response`` that the connection decides itself."""


async def _computed(function: Function, request: UpstreamRequest) -> Any:
    """The answer that a function makes.

    Raises:
        TypeError: it is no answer.
    """
    made = function(request)
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, httpx.Response):
        return made
    if not isinstance(made, Script):
        raise TypeError(
            f"the function for the upstream {request.upstream!r} returned {made!r}; it must return an answer such as "
            "json({}), or an httpx.Response"
        )
    turn = Position(made).take()
    await trio.sleep(turn.pause)
    return turn.answer
