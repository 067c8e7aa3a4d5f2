"""Ten clients ask for a page and hang up; the next one waits. With asyncio.TaskGroup, and httpx's own pool."""

import asyncio

import httpx

from umbel.labs.kit import bar, note
from umbel.labs.lab09_pool.network import URL, httpx_client, state_of


async def page(client: httpx.AsyncClient) -> None:
    """Make ten calls at once."""
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(client.get(URL))


async def main() -> None:
    """Serve ten clients that hang up after 300 ms, and then one that does not."""
    async with httpx_client(asyncio.sleep) as client:
        with bar("ten that hang up"):
            for _ in range(10):
                task = asyncio.create_task(page(client))
                await asyncio.sleep(0.3)
                task.cancel()
                await asyncio.wait([task])
        note(state_of(client))
        try:
            with bar("one that waits"):
                response = await client.get(URL)
            note(f"{response.status_code} {response.text}")
        except httpx.PoolTimeout:
            note("502 PoolTimeout")
