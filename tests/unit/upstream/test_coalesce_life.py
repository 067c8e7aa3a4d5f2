"""The coalescing layer as something that is entered and left."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.coalescing import Bottom, answering, asking, hang
from umbel.errors import NotRunningError
from umbel.upstream.coalesce import Coalesce
from umbel.upstream.errors import ConnectFailed


async def test_outside_of_its_block_it_says_so() -> None:
    with pytest.raises(NotRunningError, match="the coalescing layer"):
        await Coalesce(Bottom(hang)).handle_async_request(asking())


async def test_closing_it_cancels_what_is_under_way_and_tells_who_waits(autojump_clock) -> None:
    bottom = Bottom(hang)
    told: list[NotRunningError] = []
    async with trio.open_nursery() as nursery:
        async with Coalesce(bottom) as coalesce:

            async def ask() -> None:
                with pytest.raises(NotRunningError, match="closed while") as caught:
                    await coalesce.handle_async_request(asking())
                told.append(caught.value)

            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
        assert bottom.in_flight == 0
    assert len(set(map(id, told))) == 2


async def test_it_may_be_entered_again_and_ends_with_the_outermost(autojump_clock) -> None:
    async with Coalesce(Bottom(answering())) as coalesce:
        async with httpx.AsyncClient(transport=coalesce) as client:
            assert (await client.get("http://x/")).json() == {}
        await coalesce.handle_async_request(asking())
    with pytest.raises(NotRunningError):
        await coalesce.handle_async_request(asking())
    async with coalesce:
        await coalesce.handle_async_request(asking())


async def test_the_error_of_its_block_goes_on_bare(autojump_clock) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Coalesce(Bottom(answering())) as coalesce:
            await coalesce.handle_async_request(asking())
            raise ValueError("mine")


async def test_httpx_clients_get_what_they_know(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        if request.url.path == "/no":
            raise ConnectFailed("no")
        return httpx.Response(200, json={"path": request.url.path})

    bottom = Bottom(act)
    async with httpx.AsyncClient(transport=Coalesce(bottom)) as client:
        got: list[object] = []

        async def get(path: str) -> None:
            try:
                got.append((await client.get(f"http://x{path}")).json())
            except httpx.ConnectError as error:
                got.append(error.request.url.path)

        async with trio.open_nursery() as nursery:
            for path in ("/yes", "/no", "/yes", "/no"):
                nursery.start_soon(get, path)
    assert sorted(map(str, got)) == ["/no", "/no", "{'path': '/yes'}", "{'path': '/yes'}"]
    assert len(bottom.requests) == 2
