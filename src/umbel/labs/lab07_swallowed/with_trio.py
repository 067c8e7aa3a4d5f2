"""A poller that catches everything is cancelled. With a trio nursery."""

import trio

from umbel.labs.kit import bar, note


async def fetch() -> None:
    """Ask the upstream for news."""
    await trio.sleep(1)


async def poll() -> None:
    """Fetch again and again, whatever happens."""
    with bar("poller"):
        while True:
            try:
                await fetch()
            except BaseException as error:
                note(f"caught {type(error).__name__}")
            await trio.sleep(1)


async def main() -> None:
    """Run the poller for 2.5 s."""
    with bar("program"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await trio.sleep(2.5)
            nursery.cancel_scope.cancel()
    note("the program is over")
