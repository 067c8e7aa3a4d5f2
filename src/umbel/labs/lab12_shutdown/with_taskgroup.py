"""A server is told to stop while it works. With asyncio.TaskGroup."""

import asyncio

from umbel.labs.kit import bar, note

REQUESTS = {"page": 1, "report": 5.5, "slow reader": 60}


async def write(lines: asyncio.Queue[str | None]) -> None:
    """Append the lines to the access log, on a slow disk, until None comes."""
    while line := await lines.get():
        with bar(f"log {line}"):
            await asyncio.sleep(1)
            note(f"written: {line}")


async def handle(name: str, seconds: float, lines: asyncio.Queue[str | None]) -> None:
    """Answer a request; its line is written in the background, so that the client need not wait for it."""
    try:
        with bar(name):
            await asyncio.sleep(seconds)
    finally:
        lines.put_nowait(name)


async def main() -> None:
    """Serve until the stop signal at 3 s, then give the requests 3 s to end."""
    lines: asyncio.Queue[str | None] = asyncio.Queue(100)
    with bar("log"):
        async with asyncio.TaskGroup() as log:
            log.create_task(write(lines))
            with bar("server"):
                async with asyncio.TaskGroup() as server:
                    requests = [server.create_task(handle(name, seconds, lines)) for name, seconds in REQUESTS.items()]
                    await asyncio.sleep(3)
                    note("told to stop; the requests get 3 s")
                    _, late = await asyncio.wait(requests, timeout=3)
                    for task in late:
                        task.cancel()
            lines.put_nowait(None)
    note("the server has stopped")
