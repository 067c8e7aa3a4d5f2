"""A page whose parts all need the profile; three of them fail. With a trio nursery."""

import trio

from umbel.labs.kit import bar, note


async def profile(ready: trio.Event) -> None:
    """Ask for the user's profile, which takes 1 s; the other parts wait for it."""
    with bar("profile"):
        await trio.sleep(1)
        ready.set()


async def part(name: str, ready: trio.Event, error: Exception) -> None:
    """Try to make a part of the page from the profile."""
    with bar(name):
        await ready.wait()
        raise error


async def page() -> None:
    """Make all parts at once."""
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(profile, ready)
        nursery.start_soon(part, "offers", ready, ConnectionError("offers is down"))
        nursery.start_soon(part, "prices", ready, KeyError("currency"))
        nursery.start_soon(part, "stock", ready, ZeroDivisionError("no shops"))


async def main() -> None:
    """Answer one request, and log each error."""
    try:
        await page()
        note("200")
    except* Exception as group:
        for error in group.exceptions:
            note(f"log: {error!r}")
        note("502")
