"""A client of raw bytes: everything is sent, everything is read to the end, and then taken apart by h11.

h11 refuses what is no well-formed HTTP/1.1, so whatever comes through here is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import h11
import trio

from tests.support.server.serving import Reply

CONVERSATION_S_MAX = 10.0


@dataclass
class Heard:
    """What came back on one connection until the server closed it."""

    received: bytes
    replies: list[Reply] = field(default_factory=list)
    rest: bytes = b""
    """What is no whole answer; empty if every answer was whole."""

    @property
    def statuses(self) -> list[int]:
        return [reply.status for reply in self.replies]


async def converse(
    port: int, *pieces: bytes, half_close: bool = False, methods: Sequence[str] = (), limit: float = CONVERSATION_S_MAX
) -> Heard:
    """Send the pieces, each as its own packet, and read until the server closes.

    Raises:
        trio.TooSlowError: it did not close within ``limit`` seconds.
    """
    received = bytearray()
    with trio.fail_after(limit):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
            nursery.start_soon(_send, stream, pieces, half_close)
            try:
                while data := await stream.receive_some():
                    received += data
            except trio.BrokenResourceError:
                pass  # It closed with bytes of ours unread. What it said before that has come.
            nursery.cancel_scope.cancel(reason="the server has closed")
    return heard(bytes(received), methods)


async def _send(stream: trio.SocketStream, pieces: Sequence[bytes], half_close: bool) -> None:
    try:
        for number, piece in enumerate(pieces):
            if number:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await stream.send_all(piece)
        if half_close:
            await stream.send_eof()
    except trio.BrokenResourceError:
        pass  # The server has heard enough.


def heard(received: bytes, methods: Sequence[str] = (), *, to_the_end: bool = True) -> Heard:
    """Take the bytes of a connection apart; the nth answer is one to the nth method (GET beyond them).

    ``to_the_end``: it is the server that ended them, so that the last answer must be whole.

    Raises:
        h11.RemoteProtocolError: they are no well-formed HTTP/1.1.
    """
    result = Heard(received, rest=received)
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
            return None  # The end, where an answer might have come.
