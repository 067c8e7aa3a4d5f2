"""A server is told to stop while it works. With trio nurseries."""

import trio

from umbel.labs.kit import bar, note

REQUESTS = {"page": 1, "report": 5.5, "slow reader": 60}


async def write(lines: trio.MemoryReceiveChannel[str]) -> None:
    """Append the lines to the access log, on a slow disk, until the channel ends."""
    async for line in lines:
        with bar(f"log {line}"):
            await trio.sleep(1)
            note(f"written: {line}")


async def handle(name: str, seconds: float, lines: trio.MemorySendChannel[str]) -> None:
    """Answer a request; its line is written in the background, so that the client need not wait for it."""
    try:
        with bar(name):
            await trio.sleep(seconds)
    finally:
        lines.send_nowait(name)


async def main() -> None:
    """Serve until the stop signal at 3 s, then give the requests 3 s to end."""
    send, receive = trio.open_memory_channel[str](100)
    with bar("log"):
        async with trio.open_nursery() as log:
            log.start_soon(write, receive)
            with bar("server"):
                async with send, trio.open_nursery() as server:
                    for name, seconds in REQUESTS.items():
                        server.start_soon(handle, name, seconds, send)
                    await trio.sleep(3)
                    server.cancel_scope.deadline = trio.current_time() + 3
                    note("told to stop; the requests get 3 s")
    note("the server has stopped")
