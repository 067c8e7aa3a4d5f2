"""A page of three upstream calls; one of them sends a byte now and then, and never ends. With a trio nursery."""

import trio

from umbel.labs.kit import bar, note


async def read(pause: float) -> bytes:
    """Receive the next byte of a response, which takes ``pause`` seconds."""
    await trio.sleep(pause)
    return b"."


async def call(name: str, size: int, pause: float) -> None:
    """Receive a response of ``size`` bytes."""
    with bar(name):
        for _ in range(size):
            await read(pause)


async def orders() -> None:
    """Ask for the two halves of the orders."""
    with bar("orders"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "items", 2, 0.2)
            nursery.start_soon(call, "prices", 1000, 0.9)


async def page() -> None:
    """Ask for the parts of the page."""
    with bar("page"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "profile", 3, 0.2)
            nursery.start_soon(orders)


async def main() -> None:
    """Answer one request within 1 s."""
    try:
        with trio.fail_after(1):
            await page()
        note("200")
    except trio.TooSlowError:
        note("504")
