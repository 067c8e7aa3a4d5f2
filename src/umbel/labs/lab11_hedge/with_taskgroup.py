"""Eight requests at once, with two hedges each, to an upstream of four places. With asyncio.TaskGroup."""

import asyncio

from umbel.labs.kit import bar


async def call(number: int, places: asyncio.Semaphore) -> None:
    """Ask the upstream, which works on four calls at a time, for 1 s each."""
    with bar(f"call {number}"):
        async with places:
            await asyncio.sleep(1)


async def request(places: asyncio.Semaphore) -> None:
    """Make a call, after 0.4 s without an answer another one, and again; the first answer counts."""
    with bar("request"):
        async with asyncio.TaskGroup() as group:
            tasks = set()
            for number in (1, 2, 3):
                tasks.add(group.create_task(call(number, places)))
                limit = 0.4 if number < 3 else None
                answered, _ = await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
                if answered:
                    break
            for task in tasks:
                task.cancel()


async def main() -> None:
    """Handle eight requests."""
    places = asyncio.Semaphore(4)
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(request(places))
