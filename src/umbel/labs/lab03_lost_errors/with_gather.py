"""A page whose parts all need the profile; three of them fail. With asyncio.gather."""

import asyncio

from umbel.labs.kit import bar, note


async def profile(ready: asyncio.Event) -> None:
    """Ask for the user's profile, which takes 1 s; the other parts wait for it."""
    with bar("profile"):
        await asyncio.sleep(1)
        ready.set()


async def part(name: str, ready: asyncio.Event, error: Exception) -> None:
    """Try to make a part of the page from the profile."""
    with bar(name):
        await ready.wait()
        raise error


async def page() -> None:
    """Make all parts at once."""
    ready = asyncio.Event()
    await asyncio.gather(
        profile(ready),
        part("offers", ready, ConnectionError("offers is down")),
        part("prices", ready, KeyError("currency")),
        part("stock", ready, ZeroDivisionError("no shops")),
    )


async def main() -> None:
    """Answer one request, and log each error."""
    try:
        await page()
        note("200")
    except Exception as error:
        note(f"log: {error!r}")
        note("502")
