"""The peer of Umbel in ``path_overhead.py``: ``path_peer.py UPSTREAM_PORT CONFIG`` makes ten calls with aiohttp.

A bare ASGI application under uvicorn with uvloop and httptools: no framework, no deadline, no records.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvicorn

CALLS = 10


class Peer:
    def __init__(self, port: str) -> None:
        self._url = f"http://127.0.0.1:{port}/items/4711/parts/"
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        parts = await asyncio.gather(*(self._part(self._session, number) for number in range(CALLS)))
        body = json.dumps({f"part{number}": part for number, part in enumerate(parts)}).encode()
        fields = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": body})

    async def _part(self, session: aiohttp.ClientSession, number: int) -> Any:
        async with session.get(f"{self._url}{number}") as response:
            return await response.json()


def main() -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        Peer(sys.argv[1]), loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )
    sock.listen()
    print(f"The peer runs on http://127.0.0.1:{sock.getsockname()[1]} (it is ended)", flush=True)
    uvicorn.Server(config).run([sock])


if __name__ == "__main__":
    main()
