"""A generator merges two feeds; one fails while the consumer saves a value. With a trio nursery."""

from collections.abc import AsyncGenerator

import trio

from umbel.labs.kit import bar, note

FEEDS = {"prices": 1, "news": 2.5}


async def feed(name: str, seconds: float, values: trio.MemorySendChannel[str]) -> None:
    """Send a value after so many seconds; the second feed fails."""
    with bar(name):
        await trio.sleep(seconds)
        if name == "news":
            raise ConnectionError("news is down")
        while True:
            await values.send(name)
            await trio.sleep(seconds)


async def merged() -> AsyncGenerator[str, None]:
    """Yield the values of both feeds."""
    send, receive = trio.open_memory_channel[str](10)
    async with trio.open_nursery() as nursery:
        for name, seconds in FEEDS.items():
            nursery.start_soon(feed, name, seconds, send)
        while True:
            yield await receive.receive()


async def main() -> None:
    """Save each value, which takes 3 s."""
    with bar("consumer"):
        try:
            async for value in merged():
                with bar("save"):
                    await trio.sleep(3)
                note(f"saved {value}")
        except* ConnectionError as group:
            note(f"502: {group.exceptions[0]}")
