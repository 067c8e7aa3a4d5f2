"""Ten clients ask for a page and hang up; the next one waits. With a trio nursery, and Umbel's pool."""

import httpx
import trio

from umbel.labs.kit import bar, note
from umbel.labs.lab09_pool.network import URL, state_of, umbel_client


async def page(client: httpx.AsyncClient) -> None:
    """Make ten calls at once."""
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(client.get, URL)


async def main() -> None:
    """Serve ten clients that hang up after 300 ms, and then one that does not."""
    async with umbel_client() as client:
        with bar("ten that hang up"):
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(page, client)
                    await trio.sleep(0.3)
                    nursery.cancel_scope.cancel(reason="the client has hung up")
        note(state_of(client))
        try:
            with bar("one that waits"):
                response = await client.get(URL)
            note(f"{response.status_code} {response.text}")
        except httpx.PoolTimeout:
            note("502 PoolTimeout")
