"""The upstream of the benchmarks: one small JSON response (170 bytes) to each request, as fast as Python can send it.

It runs in a process and on a core of its own, and prints its port. With a file of key and certificates it uses TLS. It
parses nothing (all clients here send GET without a body), so that the client is what is measured.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import cast

BODY = (
    b'{"id":42,"name":"Ada Lovelace","email":"ada@example.org","orders":[{"id":1,"sku":"A-1"},{"id":2,"sku":"B-2"}],'
    b'"total":"1012.50","currency":"EUR","open":true,"since":2019}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: stub\r\nDate: Sun, 22 Nov 2026 10:35:16 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n" % len(BODY)
) + BODY
END = b"\r\n\r\n"


class Answering(asyncio.Protocol):
    """Sends a response for each request head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only.
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        heads = data.count(END)
        self._rest = b"" if data.endswith(END) else data.rpartition(END)[2]
        if heads:
            self._transport.write(ANSWER * heads)


async def main() -> None:
    context = None
    if sys.argv[1:]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=4096, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop  # Here, because others want the body alone.

    uvloop.run(main())
