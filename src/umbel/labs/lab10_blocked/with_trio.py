"""A handler calls a function that blocks, while another client asks for pages. With trio, and Umbel's watchdog."""

import time

import trio

from umbel.labs.kit import bar
from umbel.labs.lab10_blocked.watchdog import watchdog


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
            await trio.sleep(0.25)


async def main() -> None:
    """Serve both clients for 4 s."""
    async with watchdog(), trio.open_nursery() as nursery:
        nursery.start_soon(pages)
        await trio.sleep(0.9)
        nursery.start_soon(report)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
