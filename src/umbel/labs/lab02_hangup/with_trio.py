"""Twenty clients ask for a page of five upstream calls, and hang up. With trio nurseries and a watcher."""

from functools import partial

import trio

from umbel.labs.kit import bar


async def call(parts: list[bytes]) -> None:
    """Ask an upstream, which takes 8 s."""
    with bar("call"):
        await trio.sleep(8)
        parts.append(b"part")


async def page() -> bytes:
    """Ask five upstreams at once."""
    with bar("page"):
        parts: list[bytes] = []
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call, parts)
        return b" ".join(parts)


async def watch(stream: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Wait until the client hangs up, then cancel what is done for it."""
    while await stream.receive_some():
        pass
    scope.cancel(reason="the client hung up")


async def serve(stream: trio.SocketStream) -> None:
    """Answer the request of one connection, as long as its client is there."""
    await stream.receive_some()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, stream, nursery.cancel_scope)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + await page())
        nursery.cancel_scope.cancel(reason="the page is sent")


async def client(port: int) -> None:
    """Send a request, and hang up after 1 s."""
    with bar("client"):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
            await trio.sleep(1)


async def main() -> None:
    """Run the server and its clients."""
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        for _ in range(20):
            nursery.start_soon(client, listener.socket.getsockname()[1])
