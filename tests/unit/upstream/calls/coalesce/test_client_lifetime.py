"""Shared calls when their client is entered and closed."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.memory_calls import Act, Asked, answer, answering, coalescing, hang
from umbel.core.errors import NotRunningError
from umbel.upstream import Retry, Transport


async def test_a_call_outside_of_the_clients_block_fails_with_a_reason() -> None:
    transport = Transport(["http://a"], coalesce=True)
    with pytest.raises(NotRunningError, match="used outside"):
        await transport.handle_async_request(httpx.Request("GET", "http://a/"))
    assert transport.statistics().coalesce.in_flight == 0


async def test_closing_the_client_cancels_shared_calls_and_ends_their_waiters(autojump_clock) -> None:
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
    """Answer 503 with Retry-After."""
    return answer(503)


@pytest.mark.parametrize("act", [hang, answer_503], ids=["one is answered, one has no place", "a retry is due"])
async def test_closing_the_client_ends_waiters_of_a_shared_call_without_a_task(act: Act, autojump_clock) -> None:
    async with coalescing(
        act, cut=True, max_concurrency=1, retry=Retry(backoff=1000.0, max_backoff=1000.0)
    ) as upstream:
        made = [upstream.start(target) for target in (b"/1", b"/2", b"/2", b"/3")]
        await trio.testing.wait_all_tasks_blocked()
        assert upstream.statistics.waiting == 4
    assert [type(each.error) for each in made] == [NotRunningError] * 4


async def test_a_client_entered_twice_ends_with_the_outermost_exit(autojump_clock) -> None:
    async with coalescing(answering(), cut=True) as upstream:
        async with httpx.AsyncClient(transport=upstream.transport) as client:
            assert (await client.get("http://x/")).json() == {}
        assert (await upstream.start().end()).status == 200
    assert isinstance((await upstream.start().end()).error, NotRunningError)


async def test_an_exception_of_the_clients_block_is_raised_without_a_group(autojump_clock) -> None:
    with pytest.raises(ValueError, match="mine"):
        async with Transport(["http://a"], coalesce=True):
            raise ValueError("mine")


async def test_coalesced_httpx_requests_each_get_the_response_or_an_error_of_their_own(autojump_clock) -> None:
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
