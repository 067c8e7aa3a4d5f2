"""An upstream that reads requests as strictly as RFC 9112 allows, and keeps each complete one.

Anything else on a connection is kept as a fault: a framing that another server could read in two ways, or bytes that
are no request. A connection that ends within a request is ``cut``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.support.upstream.raw_server import Peer, response

_LINE = re.compile(rb"([A-Z]+) ([!-~]+) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")
_SINGLE = (b"host", b"content-length", b"transfer-encoding", b"connection")


class Arrived(NamedTuple):
    """One complete request."""

    method: bytes
    target: bytes
    body: bytes
    fields: list[tuple[bytes, bytes]]
    """Names in lower case."""

    def all(self, name: bytes) -> list[bytes]:
        """The values of a field."""
        return [value for each, value in self.fields if each == name]


class FramingError(Exception):
    """Bytes that are no request, or one that could be read in two ways."""


class StrictUpstream:
    """The handler of the connections.

    Args:
        answer: makes the response to a request; None: 200 with an empty body.
        early: answer when the head has come, and read the body then.
    """

    def __init__(
        self, answer: Callable[[Arrived, Peer], Awaitable[bytes]] | None = None, *, early: bool = False
    ) -> None:
        self.requests: list[Arrived] = []
        self.faults: list[str] = []
        self.cut = 0
        self._answer = answer
        self._early = early

    async def __call__(self, peer: Peer) -> None:
        try:
            while (arrived := await self._read(peer)) is not None:
                self.requests.append(arrived)
                if not self._early:
                    await self._respond(peer, arrived)
        except FramingError as error:
            self.faults.append(str(error))
        except EOFError:
            self.cut += 1

    async def _respond(self, peer: Peer, arrived: Arrived) -> None:
        await peer.send(response(b"") if self._answer is None else await self._answer(arrived, peer))

    async def _read(self, peer: Peer) -> Arrived | None:
        """Read one request; None: the connection has ended before it."""
        head = await peer.read_until(b"\r\n\r\n")
        if not head:
            return None
        if not head.endswith(b"\r\n\r\n"):
            raise EOFError
        line, *lines = head[:-4].split(b"\r\n")
        found = _LINE.fullmatch(line)
        if found is None:
            raise FramingError(f"the request line {line!r}")
        fields = []
        for each in lines:
            if (field := _FIELD.fullmatch(each)) is None:
                raise FramingError(f"the field line {each!r}")
            fields.append((field[1].lower(), field[2]))
        arrived = Arrived(found[1], found[2], b"", fields)
        if arrived.all(b"expect"):
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._early:
            await self._respond(peer, arrived)
        return arrived._replace(body=await self._body(peer, arrived))

    async def _body(self, peer: Peer, request: Arrived) -> bytes:
        for name in _SINGLE:
            if len(request.all(name)) > 1:
                raise FramingError(f"the field {name!r} {len(request.all(name))} times")
        lengths, codings = request.all(b"content-length"), request.all(b"transfer-encoding")
        if not request.all(b"host"):
            raise FramingError("no Host")
        if lengths and codings:
            raise FramingError("a length beside a coding")
        if codings:
            if codings != [b"chunked"]:
                raise FramingError(f"the coding {codings[0]!r}")
            return await self._chunks(peer)
        if not lengths:
            return b""
        if not lengths[0].isdigit():
            raise FramingError(f"the length {lengths[0]!r}")
        return await self._exactly(peer, int(lengths[0]))

    async def _chunks(self, peer: Peer) -> bytes:
        body = b""
        while True:
            line = await peer.read_until(b"\r\n")
            if not line.endswith(b"\r\n"):
                raise EOFError
            if _SIZE.fullmatch(line[:-2]) is None:
                raise FramingError(f"the chunk size {line!r}")
            size = int(line, 16)
            body += await self._exactly(peer, size)
            if await self._exactly(peer, 2) != b"\r\n":
                raise FramingError("no CR LF after a chunk")
            if not size:
                return body

    async def _exactly(self, peer: Peer, size: int) -> bytes:
        data = await peer.read_exactly(size)
        if len(data) < size:
            raise EOFError
        return data
