"""A client of raw bytes: it sends given bytes, reads until the server closes, and parses the responses with h11.

h11 raises RemoteProtocolError for bytes that are not well-formed HTTP/1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import h11
import trio

from tests.support.server.serving import Reply

CONVERSATION_S_MAX = 10.0


@dataclass
class ParsedResponses:
    """The bytes that were received on one connection, and the responses in them."""

    received: bytes
    replies: list[Reply] = field(default_factory=list)
    rest: bytes = b""
    """The bytes after the last complete response; empty if every response is complete."""

    @property
    def statuses(self) -> list[int]:
        return [reply.status for reply in self.replies]


async def converse(
    port: int, *pieces: bytes, half_close: bool = False, methods: Sequence[str] = (), limit: float = CONVERSATION_S_MAX
) -> ParsedResponses:
    """Send the pieces, each in a TCP segment of its own, and read until the server closes the connection.

    Args:
        half_close: send a FIN after the last piece.
        methods: the method of each request; GET for those beyond the sequence.

    Raises:
        trio.TooSlowError: the server did not close the connection within ``limit`` seconds.
        h11.RemoteProtocolError: the received bytes are not well-formed HTTP/1.1.
    """
    received = bytearray()
    with trio.fail_after(limit):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, pieces, half_close)
            try:
                while data := await stream.receive_some():
                    received += data
            except trio.BrokenResourceError:
                pass  # The server closed with unread bytes, so the kernel sent an RST. ``received`` is complete.
            nursery.cancel_scope.cancel(reason="the server has closed")
    return parse_responses(bytes(received), methods)


async def _send(stream: trio.SocketStream, pieces: Sequence[bytes], half_close: bool) -> None:
    try:
        for number, piece in enumerate(pieces):
            if number:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await stream.send_all(piece)
        if half_close:
            await stream.send_eof()
    except trio.BrokenResourceError:
        pass  # The server has closed the connection before the last piece.


def parse_responses(received: bytes, methods: Sequence[str] = (), *, to_the_end: bool = True) -> ParsedResponses:
    """Parse the responses in the bytes of one connection.

    Args:
        methods: the method of each request, since it decides whether a response has a body; GET for those beyond.
        to_the_end: whether the server has ended the connection, so that the last response must be complete.

    Raises:
        h11.RemoteProtocolError: the bytes are not well-formed HTTP/1.1.
    """
    result = ParsedResponses(received, rest=received)
    connection = h11.Connection(h11.CLIENT)
    connection.receive_data(received)
    if to_the_end:
        connection.receive_data(b"")
    while result.rest:
        method = methods[len(result.replies)] if len(result.replies) < len(methods) else "GET"
        reply = _reply(connection, method)
        if reply is None:
            break
        result.replies.append(reply)
        result.rest = connection.trailing_data[0]
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            break
        connection.start_next_cycle()
    return result


def _reply(connection: h11.Connection, method: str) -> Reply | None:
    connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    reply: Reply | None = None
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            reply = Reply(event.status_code, [(n.decode(), v.decode("latin-1")) for n, v in event.headers])
        elif isinstance(event, h11.Data):
            assert reply is not None
            reply.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return reply
        elif not isinstance(event, h11.InformationalResponse):
            return None  # The bytes end before a complete response.
