"""A call that says goodbye to its upstream when it is cancelled. With a trio nursery."""

import trio

from umbel.labs.kit import bar, note


async def goodbye() -> None:
    """Tell the upstream that its answer is not needed. It does not react; after 3 s the connection is given up."""
    with bar("goodbye"):
        await trio.sleep(3)


async def call() -> None:
    """Ask an upstream, which takes 8 s."""
    with bar("call"):
        try:
            await trio.sleep(8)
        finally:
            await goodbye()


async def page() -> None:
    """Ask the upstream."""
    with bar("page"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)


async def main() -> None:
    """Answer one request within 1 s."""
    try:
        with trio.fail_after(1):
            await page()
        note("200")
    except trio.TooSlowError:
        note("504")
