"""A generator merges two feeds; one fails while the consumer saves a value. With asyncio.create_task."""

import asyncio
from collections.abc import AsyncGenerator

from umbel.labs.kit import bar, note

FEEDS = {"prices": 1, "news": 2.5}


async def feed(name: str, seconds: float, values: asyncio.Queue[str]) -> None:
    """Put a value into the queue after so many seconds; the second feed fails."""
    with bar(name):
        await asyncio.sleep(seconds)
        if name == "news":
            raise ConnectionError("news is down")
        while True:
            await values.put(name)
            await asyncio.sleep(seconds)


async def merged() -> AsyncGenerator[str, None]:
    """Yield the values of both feeds."""
    values: asyncio.Queue[str] = asyncio.Queue()
    tasks = [asyncio.create_task(feed(name, seconds, values)) for name, seconds in FEEDS.items()]
    try:
        while True:
            yield await values.get()
    finally:
        for task in tasks:
            task.cancel()


async def main() -> None:
    """Save each value, which takes 3 s."""
    with bar("consumer"):
        try:
            async for value in merged():
                with bar("save"):
                    await asyncio.sleep(3)
                note(f"saved {value}")
        except ConnectionError as error:
            note(f"502: {error}")
