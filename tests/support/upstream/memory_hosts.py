"""Hosts in memory, each with a behaviour of its own, for upstreams with several replicas.

hosts = Hosts(nursery, a=answering(), b=answering(503, after=1.0), c=failing(ConnectFailed("refused")))
async with Transport(["http://a", "http://b", "http://c"], dial=hosts) as transport: ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio
import trio.testing

from tests.support.upstream.memory_dial import MemoryStream, ServerEnd
from umbel.upstream.replicas.origin import Origin

Act = Callable[[ServerEnd], Awaitable[object]]
"""Answers one request. If it returns, the connection persists; if it raises, the connection is closed."""


class Unreachable(NamedTuple):
    """A host that cannot be connected to: connecting takes ``after`` seconds and raises ``error``."""

    error: Exception
    after: float


class Asked(NamedTuple):
    """A request that a host received, or a failed connection attempt."""

    at: float
    origin: Origin
    request: bytes
    """Head and body; empty for a failed connection attempt."""

    @property
    def line(self) -> str:
        return self.request.partition(b"\r\n")[0].decode()

    @property
    def lines(self) -> list[bytes]:
        """The field lines of the head."""
        return self.request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


class Hosts:
    """The ``dial`` of a pool. Connections are served in ``nursery``; a test may change ``acts`` at any time."""

    def __init__(self, nursery: trio.Nursery, **acts: Act | Unreachable) -> None:
        self.acts = acts
        self.asked: list[Asked] = []
        self.under_way = 0
        """The number of requests without a response."""
        self._nursery = nursery

    async def __call__(self, origin: Origin, timeout: float | None) -> MemoryStream:
        act = self.acts[origin.host]
        if isinstance(act, Unreachable):
            self.asked.append(Asked(trio.current_time(), origin, b""))
            await trio.sleep(act.after)
            # A new exception each time, because a raised one keeps its traceback.
            raise type(act.error)(*act.error.args)
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, origin, theirs)
        return MemoryStream(ours)

    def take(self) -> list[str]:
        """Return the hosts of the requests since the last ``take`` or ``count``, in order."""
        names = [each.origin.host for each in self.asked]
        self.asked.clear()
        return names

    def count(self) -> Counter[str]:
        """Return the number of requests of each host since the last ``take`` or ``count``."""
        return Counter(self.take())

    @property
    def times(self) -> dict[str, list[float]]:
        """The times of the requests, by host."""
        times: dict[str, list[float]] = {}
        for each in self.asked:
            times.setdefault(each.origin.host, []).append(each.at)
        return times

    async def _serve(self, origin: Origin, end: ServerEnd) -> None:
        try:
            while (request := await _request(end)) and not isinstance(act := self.acts[origin.host], Unreachable):
                self.asked.append(Asked(trio.current_time(), origin, request))
                self.under_way += 1
                try:
                    await act(end)
                finally:
                    self.under_way -= 1
        except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError):
            pass
        finally:
            await end.aclose()


async def _request(end: ServerEnd) -> bytes:
    """Read a request with its body; return ``b""`` if the client has closed."""
    data = b""
    size: int | None = None
    while size is None or len(data) < size:
        piece = await end.receive_some()
        if not piece:
            return b""
        data += piece
        head, found, _ = data.partition(b"\r\n\r\n")
        if found:
            _, _, said = head.lower().partition(b"content-length: ")
            size = len(head) + 4 + int(said.partition(b"\r\n")[0] or 0)
    return data


def answering(status: int = 200, after: float = 0.0, body: bytes = b"ok", fields: str = "") -> Act:
    """Make an ``Act`` that answers after ``after`` seconds; ``fields`` are field lines, each with its CRLF."""
    head = f"HTTP/1.1 {status} X\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode()

    async def act(end: ServerEnd) -> None:
        await trio.sleep(after)
        await end.send_all(head + body)

    return act


def failing(error: Exception, after: float = 0.0) -> Unreachable:
    """Make a host that cannot be connected to."""
    return Unreachable(error, after)


async def hang(end: ServerEnd) -> None:
    """Never answer; wait until the client closes the connection."""
    await end.receive_some()
    raise ConnectionError


def in_pieces(piece: bytes = b"piece", *, broken: bool = False) -> Act:
    """Make an ``Act`` that answers with three pieces, one per turn; ``broken``: close after the first piece."""

    async def act(end: ServerEnd) -> None:
        await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (3 * len(piece)))
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            await end.send_all(piece)
            if broken:
                raise ConnectionError

    return act
