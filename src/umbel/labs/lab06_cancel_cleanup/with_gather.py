"""A call that says goodbye to its upstream when it is cancelled. With asyncio.gather."""

import asyncio

from umbel.labs.kit import bar, note


async def goodbye() -> None:
    """Tell the upstream that its answer is not needed. It does not react; after 3 s the connection is given up."""
    with bar("goodbye"):
        await asyncio.sleep(3)


async def call() -> None:
    """Ask an upstream, which takes 8 s."""
    with bar("call"):
        try:
            await asyncio.sleep(8)
        finally:
            await goodbye()


async def page() -> None:
    """Ask the upstream."""
    with bar("page"):
        await asyncio.gather(call())


async def main() -> None:
    """Answer one request within 1 s."""
    try:
        async with asyncio.timeout(1):
            await page()
        note("200")
    except TimeoutError:
        note("504")
