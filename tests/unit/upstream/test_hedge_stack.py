"""The hedge layer alone, and among the layers beneath and above it."""

from __future__ import annotations

import gc

import httpx
import pytest
import trio
import trio.testing

from tests.support.memory_dial import MemoryDial, ServerEnd
from tests.support.scripts import HANGS, Script, Step, call_facts, call_request
from umbel.errors import NotRunningError
from umbel.kinds import Kind
from umbel.model import FACTS
from umbel.policy.budget import Budget
from umbel.upstream.attempt import Attempt
from umbel.upstream.balance import Balance
from umbel.upstream.body import Body
from umbel.upstream.errors import ConnectFailed, Malformed
from umbel.upstream.hedge import Hedge
from umbel.upstream.pool import Pool
from umbel.upstream.retry import Retry


async def test_outside_of_its_block_it_hedges_nothing_and_says_so() -> None:
    layer = Hedge(Script([Step(0.0, 200)]), after=1.0)
    with pytest.raises(NotRunningError, match="outside of its `async with`"):
        await layer.handle_async_request(call_request())


async def test_any_httpx_user_can_take_it_alone_and_enter_it_twice(autojump_clock) -> None:
    bodies = iter([1000.0, 0.0])

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(next(bodies))
        return httpx.Response(200, json={"a": 1})

    async with (
        Hedge(httpx.MockTransport(answer), after=0.05) as layer,
        httpx.AsyncClient(transport=layer, timeout=None) as client,
    ):
        assert (await client.get("http://x/")).json() == {"a": 1}


async def test_over_a_pool_the_losers_connection_is_closed_and_the_winners_is_kept(
    nursery: trio.Nursery, autojump_clock
) -> None:
    open_requests = 0
    served = 0

    async def serve(end: ServerEnd) -> None:
        nonlocal open_requests, served
        served += 1
        slow = served == 1
        while await end.receive_some():
            open_requests += 1
            try:
                if slow:
                    await end.receive_some()  # Nothing more comes but the end.
                    return
                await end.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            finally:
                open_requests -= 1

    dial = MemoryDial(nursery, serve)
    async with Hedge(Body(Pool(dial=dial)), after=0.05) as layer:
        response = await layer.handle_async_request(call_request())
        assert response.content == b"ok"
        assert [wire.closed for wire in dial.wires] == [True, False], "closed when the call returns, not later"
        await trio.testing.wait_all_tasks_blocked()
        assert open_requests == 0


async def test_a_failed_call_leaves_no_garbage_behind(autojump_clock) -> None:
    async with Hedge(Script([Step(0.0, Malformed("no"))]), after=1.0) as layer:
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                with pytest.raises(Malformed):
                    await layer.handle_async_request(call_request())
            gc.collect()
            assert [each for each in gc.garbage if isinstance(each, Malformed)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_what_is_no_time_is_refused() -> None:
    for more in ({"after": "95"}, {"after": -1.0}, {"after": 1.0, "max": -1}):
        with pytest.raises(ValueError, match=r"neither seconds nor a percentile|not negative"):
            Hedge(Script([HANGS]), **more)


@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
async def test_every_attempt_of_a_call_takes_another_replica(policy: str, autojump_clock) -> None:
    asked: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if len(asked) == 1:
            raise ConnectFailed("no")
        if len(asked) == 2:
            return httpx.Response(503)
        await trio.sleep(1000.0 if len(asked) == 3 else 0.01)
        return httpx.Response(200)

    replicas = ["http://a", "http://b", "http://c", "http://d"]
    budget = Budget()
    balance = Balance(Attempt(httpx.MockTransport(answer)), replicas, policy=policy)
    facts = call_facts(100.0)
    async with Retry(Hedge(balance, after=1.0, budget=budget), budget=budget) as layer:
        request = httpx.Request("GET", "http://upstream/", extensions={FACTS: facts, "target": b"/"})
        assert (await layer.handle_async_request(request)).status_code == 200
    assert sorted(asked) == ["a", "b", "c", "d"]
    recorded = [(each.cause, each.kind, each.status) for each in facts.attempts]
    assert recorded == [
        ("first", Kind.CONNECT, None),
        ("hedge", None, 503),
        ("hedge", None, 200),
        ("retry", Kind.CANCELLED, None),
    ]
