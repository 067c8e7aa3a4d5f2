"""A poller that catches everything is cancelled. With asyncio.create_task."""

import asyncio

from umbel.labs.kit import bar, note


async def fetch() -> None:
    """Ask the upstream for news."""
    await asyncio.sleep(1)


async def poll() -> None:
    """Fetch again and again, whatever happens."""
    with bar("poller"):
        while True:
            try:
                await fetch()
            except BaseException as error:
                note(f"caught {type(error).__name__}")
            await asyncio.sleep(1)


async def main() -> None:
    """Run the poller for 2.5 s."""
    with bar("program"):
        task = asyncio.create_task(poll())
        await asyncio.sleep(2.5)
        task.cancel()
        await asyncio.wait([task])
    note("the program is over")
