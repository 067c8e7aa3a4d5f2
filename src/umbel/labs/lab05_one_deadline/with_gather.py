"""A page of three upstream calls; one of them sends a byte now and then, and never ends. With asyncio.gather."""

import asyncio

from umbel.labs.kit import bar, note


async def read(pause: float) -> bytes:
    """Receive the next byte of a response, which takes ``pause`` seconds."""
    await asyncio.sleep(pause)
    return b"."


async def call(name: str, size: int, pause: float) -> None:
    """Receive a response of ``size`` bytes. No byte may take longer than 1 s."""
    with bar(name):
        for _ in range(size):
            await asyncio.wait_for(read(pause), timeout=1)


async def orders() -> None:
    """Ask for the two halves of the orders."""
    with bar("orders"):
        await asyncio.gather(call("items", 2, 0.2), call("prices", 1000, 0.9))


async def page() -> None:
    """Ask for the parts of the page."""
    with bar("page"):
        await asyncio.gather(call("profile", 3, 0.2), orders())


async def main() -> None:
    """Answer one request."""
    try:
        await page()
        note("200")
    except TimeoutError:
        note("504")
