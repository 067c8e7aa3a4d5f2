"""Twenty clients ask for a page of five upstream calls, and hang up. With asyncio.gather and asyncio's server."""

import asyncio

from umbel.labs.kit import bar


async def call() -> bytes:
    """Ask an upstream, which takes 8 s."""
    with bar("call"):
        await asyncio.sleep(8)
        return b"part"


async def page() -> bytes:
    """Ask five upstreams at once."""
    with bar("page"):
        return b" ".join(await asyncio.gather(*(call() for _ in range(5))))


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the request of one connection. asyncio runs this in a task, as uvicorn does with an application."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + await page())
    writer.close()


async def client(host: str, port: int) -> None:
    """Send a request, and hang up after 1 s."""
    with bar("client"):
        _, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
        await asyncio.sleep(1)
        writer.close()


async def main() -> None:
    """Run the server and its clients."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await asyncio.gather(*(client(*address) for _ in range(20)))
    await server.serve_forever()
