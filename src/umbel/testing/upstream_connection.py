"""The upstream's end of a connection in memory: HTTP/1.1 by h11, so that the gateway meets another implementation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import trio

from ..net.memory_stream import MemoryStream
from ..upstream.aclosing_iter import pieces_of
from ..upstream.replicas.origin import Origin
from .received import UpstreamRequest
from .script import Answer, Computed, Failure, Function, Piece, Position, Script, ScriptedResponse

try:
    import h11
except ImportError as error:
    raise ImportError("umbel.testing needs the library h11; run pip install 'umbel[testing]'") from error

REQUEST_BYTES_MAX = 64 * 2**20
"""The bound on the body of a request that an upstream receives."""
_TERABYTE = 10**12
_FRAMING = frozenset({b"transfer-encoding", b"content-length", b"connection", b"keep-alive"})
"""Fields that the connection decides itself."""


class RequestTooLargeError(ValueError):
    """The body of a request is larger than ``REQUEST_BYTES_MAX``."""


UNPASSABLE = (RequestTooLargeError, h11.ProtocolError)
"""Exceptions that say that a request or a response is not one that this connection can carry."""

Fields = Sequence[tuple[bytes, bytes]]


class UpstreamConnection:
    """Receives requests and sends responses on ``stream``, one after the other.

    Every method raises trio's BrokenResourceError or ClosedResourceError when the connection has ended.
    """

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)

    async def next_request(self, upstream: str, origin: Origin) -> UpstreamRequest | None:
        """Receive the next request; None if there is none, because the connection ends.

        Raises:
            RequestTooLargeError: the body is larger than ``REQUEST_BYTES_MAX``.
            h11.RemoteProtocolError: what came is no request.
        """
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
                raise RequestTooLargeError(
                    f"a request to the upstream {upstream!r} is larger than {REQUEST_BYTES_MAX} bytes"
                )
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
            TypeError, ValueError: a function gave what is no answer.
        """
        if isinstance(answer, Computed):
            answer = await _computed(answer.function, request)
        if isinstance(answer, Failure):
            await self.fail(answer)
            return
        assert isinstance(answer, ScriptedResponse | httpx.Response), "a function gives another answer than itself"
        status: int
        fields: Fields
        body: Any
        if isinstance(answer, ScriptedResponse):
            status, fields, body = answer.status, answer.fields, answer.body
            whole = body if isinstance(body, bytes) else None
        else:
            status, fields, body = answer.status_code, answer.headers.raw, answer.stream
            whole = b"".join(body) if isinstance(body, httpx.ByteStream) else None
        has_body = await self.begin(request, status, fields, None if whole is None else len(whole), close=closes())
        if has_body:
            if whole is not None:
                await self.send_data(whole)
            elif isinstance(body, tuple):
                await self._send_pieces(body)
            else:
                async with pieces_of(body) as pieces:
                    async for piece in pieces:
                        await self.send_data(piece)
        await self.end()

    async def begin(
        self, request: UpstreamRequest, status: int, fields: Fields, length: int | None, *, close: bool
    ) -> bool:
        """Send the head of a response, and return whether a body follows.

        Args:
            request: what is answered.
            status: the status.
            fields: the fields; those of framing are left out and written anew.
            length: the number of bytes of the body; None: not known, so chunks are sent.
            close: whether the connection ends with the response.
        """
        has_body = request.method != "HEAD" and status not in (204, 304)
        written = [field for field in fields if field[0].lower() not in _FRAMING]
        if length is None and has_body:
            written.append((b"Transfer-Encoding", b"chunked"))
        elif length is not None and status not in (204, 304):
            written.append((b"Content-Length", str(length).encode()))
        if close:
            written.append((b"Connection", b"close"))
        await self._send(h11.Response(status_code=status, headers=written))
        return has_body

    async def send_data(self, data: bytes) -> None:
        """Send a part of the body."""
        if data:
            await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """End the response."""
        await self._send(h11.EndOfMessage())

    async def _send_pieces(self, pieces: Sequence[Piece]) -> None:
        """Send a streamed body. ``fail`` and ``hang`` do not return."""
        for piece in pieces:
            if isinstance(piece, bytes):
                await self.send_data(piece)
                continue
            await trio.sleep(piece.pause)
            for turn in piece.turns:
                await trio.sleep(turn.pause)
                assert isinstance(turn.answer, Failure)
                await self.fail(turn.answer)

    async def fail(self, failure: Failure) -> None:
        """Do what a failure says. Never returns.

        Raises:
            ValueError: the failure comes before a request.
        """
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

    async def _send(self, event: Any) -> None:
        data = self._h11.send(event)
        if data:
            await self._stream.send_all(data)


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
