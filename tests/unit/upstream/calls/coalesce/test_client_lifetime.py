"""Shared calls while their upstream is entered and left."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.memory_calls import Act, Asked, answer, answering, coalescing, hang
from umbel.core.errors import NotRunningError
from umbel.upstream import Retry, Transport


async def test_outside_of_its_block_it_says_so() -> None:
    transport = Transport(["http://a"], coalesce=True)
    with pytest.raises(NotRunningError, match="used outside"):
        await transport.handle_async_request(httpx.Request("GET", "http://a/"))
    assert transport.statistics().coalesce.in_flight == 0


async def test_closing_it_cancels_what_is_under_way_and_wakes_who_waits(autojump_clock) -> None:
    async with coalescing(hang, cut=True) as upstream:
        made = [upstream.start() for _ in range(2)]
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.in_flight == 1
    assert upstream.in_flight == 0
    for each in made:
        assert isinstance(each.error, NotRunningError)
        assert "closed while" in str(each.error)
    assert made[0].error is not made[1].error


async def answer_503(asked: Asked) -> bytes:
    """Say that it should be asked later."""
    return answer(503)


@pytest.mark.parametrize("act", [hang, answer_503], ids=["one is answered, one has no place", "a retry is due"])
async def test_closing_it_wakes_who_waits_for_what_has_no_task(act: Act, autojump_clock) -> None:
    async with coalescing(
        act, cut=True, max_concurrency=1, retry=Retry(backoff=1000.0, max_backoff=1000.0)
    ) as upstream:
        made = [upstream.start(target) for target in (b"/1", b"/2", b"/2", b"/3")]
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.statistics.waiting == 4
    assert [type(each.error) for each in made] == [NotRunningError] * 4


async def test_it_may_be_entered_again_and_ends_with_the_outermost(autojump_clock) -> None:
    async with coalescing(answering(), cut=True) as upstream:
        async with httpx.AsyncClient(transport=upstream.transport) as client:
            assert (await client.get("http://x/")).json() == {}
        assert (await upstream.start().end()).status == 200
    assert isinstance((await upstream.start().end()).error, NotRunningError)


async def test_the_error_of_its_block_goes_on_bare(autojump_clock) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Transport(["http://a"], coalesce=True):
            raise ValueError("mine")


async def test_httpx_clients_get_what_they_know(autojump_clock) -> None:
    async def act(asked: Asked) -> bytes:
        await trio.sleep(1)
        return answer(content=b'"%b"' % asked.target) if asked.target != b"/no" else b""

    async with coalescing(act) as upstream, httpx.AsyncClient(transport=upstream.transport) as client:
        got: list[str] = []

        async def get(path: str) -> None:
            try:
                got.append((await client.get(f"http://x{path}")).json())
            except httpx.ReadError as error:
                got.append(f"failed: {error.request.url.path}")

        async with trio.open_nursery() as nursery:
            for path in ("/yes", "/no", "/yes", "/no"):
                nursery.start_soon(get, path)
        assert sorted(got) == ["/yes", "/yes", "failed: /no", "failed: /no"]
        assert len(upstream.requests) == 2
