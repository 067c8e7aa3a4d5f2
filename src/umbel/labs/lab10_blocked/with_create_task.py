"""A handler calls a function that blocks, while another client asks for pages. With asyncio.create_task."""

import asyncio
import time

from umbel.labs.kit import bar


def render() -> None:
    """Make a report: 2 s without an await, as a computation or a driver that is not async."""
    time.sleep(2)


async def report() -> None:
    """Handle the request for the report."""
    with bar("report"):
        render()


async def pages() -> None:
    """Handle the other client's requests, each of which takes 250 ms."""
    while True:
        with bar("page"):
            await asyncio.sleep(0.25)


async def main() -> None:
    """Serve both clients for 4 s."""
    tasks = [asyncio.create_task(pages())]
    await asyncio.sleep(0.9)
    tasks.append(asyncio.create_task(report()))
    await asyncio.sleep(3)
    tasks[0].cancel()
