"""A page of six upstream calls; one of them fails. With a trio nursery."""

import trio

from umbel.labs.kit import bar, note

CALLS = {"offers": 1, "profile": 8, "orders": 8, "items": 8, "reviews": 8, "news": 8}


async def call(name: str, seconds: float, parts: list[str]) -> None:
    """Ask an upstream, which takes so many seconds."""
    with bar(name):
        await trio.sleep(seconds)
        if name == "offers":
            raise ConnectionError("offers is down")
        parts.append(name)


async def page() -> str:
    """Ask all upstreams at once."""
    with bar("page"):
        parts: list[str] = []
        async with trio.open_nursery() as nursery:
            for name, seconds in CALLS.items():
                nursery.start_soon(call, name, seconds, parts)
        return " ".join(parts)


async def main() -> None:
    """Answer one request."""
    try:
        note(f"200 {await page()}")
    except* ConnectionError as group:
        note(f"502 {group.exceptions[0]}")
