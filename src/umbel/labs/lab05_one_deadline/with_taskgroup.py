"""A page of three upstream calls; one of them sends a byte now and then, and never ends. With asyncio.TaskGroup."""

import asyncio

from umbel.labs.kit import bar, note


async def read(pause: float) -> bytes:
    """Receive the next byte of a response, which takes ``pause`` seconds."""
    await asyncio.sleep(pause)
    return b"."


async def call(name: str, size: int, pause: float) -> None:
    """Receive a response of ``size`` bytes."""
    with bar(name):
        for _ in range(size):
            await read(pause)


async def orders() -> None:
    """Ask for the two halves of the orders."""
    with bar("orders"):
        async with asyncio.TaskGroup() as group:
            group.create_task(call("items", 2, 0.2))
            group.create_task(call("prices", 1000, 0.9))


async def page() -> None:
    """Ask for the parts of the page."""
    with bar("page"):
        async with asyncio.TaskGroup() as group:
            group.create_task(call("profile", 3, 0.2))
            group.create_task(orders())


async def main() -> None:
    """Answer one request within 1 s."""
    try:
        async with asyncio.timeout(1):
            await page()
        note("200")
    except TimeoutError:
        note("504")
