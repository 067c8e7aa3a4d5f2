"""The network of lab 9: a new connection takes half a second, an answer comes at once, both in virtual time.

Only the network is a model. The pools that open their connections on it are httpx's own, which is that of httpcore, and
Umbel's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpcore
import httpx
import trio

from umbel.upstream import Pool

URL = "http://upstream.example/"
MAX_CONNECTIONS = 2
CONNECT_S = 0.5
"""Seconds of name look-up, TCP connect and TLS handshake together."""
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class _HttpcoreConnection(httpcore.AsyncNetworkStream):
    """A connection for httpcore, each of whose reads is an answer."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return _ANSWER

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        return None


class _HttpcoreNetwork(httpcore.AsyncNetworkBackend):
    def __init__(self, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._sleep = sleep

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        await self._sleep(CONNECT_S)
        return _HttpcoreConnection()


def httpx_client(sleep: Callable[[float], Awaitable[None]]) -> httpx.AsyncClient:
    """Return a client of httpx with its own pool. ``sleep`` is that of the library in use."""
    transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=MAX_CONNECTIONS))
    pool = transport._pool
    assert isinstance(pool, httpcore.AsyncConnectionPool)
    pool._network_backend = _HttpcoreNetwork(sleep)  # httpcore has a parameter for it, httpx has none.
    return httpx.AsyncClient(transport=transport)


class _UmbelConnection:
    """A connection for Umbel's pool (``umbel.net.stream.Stream``), each of whose reads is an answer."""

    async def send_all(self, data: bytes) -> None:
        pass

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return _ANSWER

    def is_quiet(self) -> bool:
        return True

    def close_now(self) -> None:
        pass

    def send_eof(self) -> None:
        pass

    def close(self) -> None:
        pass


async def _dial(origin: object, timeout: float | None) -> _UmbelConnection:
    await trio.sleep(CONNECT_S)
    return _UmbelConnection()


def umbel_client() -> httpx.AsyncClient:
    """Return a client of httpx with Umbel's pool."""
    return httpx.AsyncClient(transport=Pool(max_connections=MAX_CONNECTIONS, dial=_dial))


def state_of(client: httpx.AsyncClient) -> str:
    """Return how many requests, waiting or not, and how many connections the pool of a client has."""
    transport = client._transport
    if isinstance(transport, Pool):
        now = transport.statistics()
        requests = now.slots.in_use + now.slots.waiting if now.slots else now.active
        in_use = now.connecting + now.active
    else:
        assert isinstance(transport, httpx.AsyncHTTPTransport)
        pool = transport._pool
        assert isinstance(pool, httpcore.AsyncConnectionPool)
        requests = len(pool._requests)
        in_use = sum(not connection.is_idle() for connection in pool.connections)
    return f"the pool: {requests} requests, {in_use} of {MAX_CONNECTIONS} connections in use"
