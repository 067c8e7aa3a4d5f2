"""A page of six upstream calls; one of them fails. With asyncio.gather."""

import asyncio

from umbel.labs.kit import bar, note

CALLS = {"offers": 1, "profile": 8, "orders": 8, "items": 8, "reviews": 8, "news": 8}


async def call(name: str, seconds: float) -> str:
    """Ask an upstream, which takes so many seconds."""
    with bar(name):
        await asyncio.sleep(seconds)
        if name == "offers":
            raise ConnectionError("offers is down")
        return name


async def page() -> str:
    """Ask all upstreams at once."""
    with bar("page"):
        parts = await asyncio.gather(*(call(name, seconds) for name, seconds in CALLS.items()))
        return " ".join(parts)


async def main() -> None:
    """Answer one request."""
    try:
        note(f"200 {await page()}")
    except ConnectionError as error:
        note(f"502 {error}")
