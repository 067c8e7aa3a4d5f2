"""A server is told to stop while it works. With asyncio.create_task."""

import asyncio

from umbel.labs.kit import bar, note

REQUESTS = {"page": 1, "report": 5.5, "slow reader": 60}
tasks: set[asyncio.Task[None]] = set()


async def write(line: str) -> None:
    """Append a line to the access log, on a slow disk."""
    with bar(f"log {line}"):
        await asyncio.sleep(1)
        note(f"written: {line}")


async def handle(name: str, seconds: float) -> None:
    """Answer a request; its line is written in the background, so that the client need not wait for it."""
    try:
        with bar(name):
            await asyncio.sleep(seconds)
    finally:
        task = asyncio.create_task(write(name))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def main() -> None:
    """Serve until the stop signal at 3 s, then give the requests 3 s to end."""
    with bar("server"):
        requests = [asyncio.create_task(handle(name, seconds)) for name, seconds in REQUESTS.items()]
        await asyncio.sleep(3)
        note("told to stop; the requests get 3 s")
        _, late = await asyncio.wait(requests, timeout=3)
        for task in late:
            task.cancel()
        await asyncio.wait(late)
    note("the server has stopped")
