"""Results of shared calls: private responses, failures, and own calls."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing

from tests.support.upstream.calls import fields
from tests.support.upstream.memory_calls import Asked, answer, answering, coalescing, hang
from umbel.core.errors import NotRunningError
from umbel.core.failure_kinds import Kind
from umbel.net.stream import Stream
from umbel.upstream import CallTimedOut, CoalesceStatistics, ConnectFailed, ConnectionReset, TooBig
from umbel.upstream.calls import coalesce
from umbel.upstream.pool.dial import Dial
from umbel.upstream.replicas.origin import Origin

# Responses that are not shared


@pytest.mark.parametrize(
    "headers",
    [
        [("Set-Cookie", "id=1")],
        [("Cache-Control", "private")],
        [("cache-control", "max-age=5, Private")],
        [("cache-control", "max-age=5"), ("cache-control", 'private="x-a", no-cache')],
    ],
)
async def test_a_private_response_goes_to_one_waiter_and_the_others_make_own_calls(
    headers: list[tuple[str, str]], autojump_clock
) -> None:
    async with coalescing(answering(headers=headers)) as upstream:
        began = trio.current_time()
        made = [upstream.start(gateway=(fields({"x-request-id": name}),)) for name in ("a", "b", "c")]
        ends = await upstream.ends(*made)
        assert [each.ended_at - began for each in ends] == [1.0, 2.0, 2.0], "the one that waited the longest"
        assert upstream.statistics == CoalesceStatistics(0, 0, 1, 2, 2, 0, 0)
        shared, *own = [request.value(b"x-request-id") for request in upstream.requests]
        assert (shared not in (b"a", b"b", b"c"), sorted(own)) == (True, [b"b", b"c"]), "with their own requests"
        assert [[each.coalesced for each in one.attempts] for one in made] == [[False], [True, False], [True, False]]


@pytest.mark.parametrize("value", ["public", "max-age=5", 'no-cache="x-private"', "x-private", "privately"])
async def test_a_response_that_only_resembles_a_private_one_is_shared(value: str, autojump_clock) -> None:
    async with coalescing(answering(headers=[("cache-control", value)])) as upstream:
        await upstream.ends(upstream.start(), upstream.start())
        assert len(upstream.requests) == 1


async def test_a_private_response_with_one_waiter_is_taken(autojump_clock) -> None:
    async with coalescing(answering(headers=[("Set-Cookie", "id=1")])) as upstream:
        stays, leaves = upstream.start(), upstream.start()
        leaves.cancel("client-gone")
        assert (await stays.end()).status == 200
        assert upstream.statistics == CoalesceStatistics(0, 0, 1, 1, 0, 0, 0)
        assert len(upstream.requests) == 1


async def test_an_own_call_after_a_private_response_keeps_the_calls_limit(autojump_clock) -> None:
    answers = iter([answer(headers={"set-cookie": "id=1"})])

    async def act(asked: Asked) -> bytes:
        await trio.sleep(1)
        return next(answers, None) or await hang(asked)

    async with coalescing(act) as upstream:
        began = trio.current_time()
        first, second = upstream.start(), upstream.start(limit=3.0)
        assert (await first.end()).status == 200
        end = await second.end()
        assert isinstance(end.error, CallTimedOut)
        assert end.ended_at - began == 3.0
        assert [each.kind for each in second.attempts] == [None, Kind.TIMEOUT]


async def test_an_own_call_after_a_private_response_can_be_cancelled(autojump_clock) -> None:
    async with coalescing(answering(headers={"set-cookie": "id=1"})) as upstream:
        _, second = upstream.start(), upstream.start(limit=60.0, budget=100.0)
        await trio.sleep(1.5)
        assert upstream.in_flight == 1
        second.cancel("client-gone")
        assert [each.kind for each in second.attempts] == [None, Kind.CLIENT_GONE]


async def test_beyond_the_bound_of_shared_calls_a_call_is_not_coalesced(
    monkeypatch: pytest.MonkeyPatch, autojump_clock
) -> None:
    monkeypatch.setattr(coalesce, "SHARED_MAX", 2)
    async with coalescing(answering()) as upstream:
        made = [upstream.start(target) for target in (b"/1", b"/2", b"/3", b"/3", b"/1")]
        assert {each.status for each in await upstream.ends(*made)} == {200}
        assert upstream.statistics == CoalesceStatistics(0, 0, 2, 1, 0, 0, 2)
        assert sorted(request.target for request in upstream.requests) == [b"/1", b"/2", b"/3", b"/3"]


async def test_a_shared_call_that_was_replaced_counts_until_its_end(
    monkeypatch: pytest.MonkeyPatch, autojump_clock
) -> None:
    monkeypatch.setattr(coalesce, "SHARED_MAX", 2)
    async with coalescing(answering(after=10)) as upstream:
        made = [upstream.start(budget=2, limit=1), upstream.start(budget=100)]
        await trio.sleep(3)
        # No call may join the first shared call any more; its second waiter still waits.
        made += [upstream.start(budget=100) for _ in range(2)]
        assert (upstream.statistics.in_flight, upstream.statistics.waiting) == (2, 3)
        made.append(upstream.start(b"/2", budget=100))
        assert (upstream.statistics.in_flight, upstream.statistics.crowded) == (2, 1)
        assert [each.status for each in await upstream.ends(*made)] == [None, 200, 200, 200, 200]
        assert upstream.statistics == CoalesceStatistics(0, 0, 2, 2, 0, 0, 1)
        assert len(upstream.requests) == 3


# Failures


async def test_a_failure_fails_every_waiter_with_an_exception_of_its_own(autojump_clock) -> None:
    async def act(asked: Asked) -> bytes:
        await trio.sleep(1)
        return b""

    async with coalescing(act) as upstream:
        errors = [each.error for each in await upstream.ends(*[upstream.start() for _ in range(3)])]
        assert len(upstream.requests) == 1
    (original,) = {each.__cause__ for each in errors if each is not None}
    assert isinstance(original, ConnectionReset)
    assert len({id(each) for each in [*errors, original]}) == 4
    for each in errors:
        assert isinstance(each, ConnectionReset)
        assert (each.kind, each.detail, str(each)) == (Kind.RESET, original.detail, str(original))
        assert each.untouched is True


async def test_a_response_over_the_body_limit_fails_every_waiter(autojump_clock) -> None:
    async with coalescing(answering(content=b"123456"), max_body=5) as upstream:
        errors = [each.error for each in await upstream.ends(upstream.start(), upstream.start())]
        assert [type(each) for each in errors] == [TooBig, TooBig]
        assert len(upstream.requests) == 1


def failing(error: Exception) -> Dial:
    """A dial that fails."""

    async def dial(origin: Origin, timeout: float | None) -> Stream:
        await trio.sleep(1)
        raise error

    return dial


async def test_the_failure_of_a_single_waiter_is_not_copied(autojump_clock) -> None:
    original = ConnectFailed("no")
    async with coalescing(hang, dial=failing(original)) as upstream:
        assert (await upstream.start().end()).error is original
    assert original.__cause__ is None


@pytest.mark.parametrize(
    "original",
    [
        httpx.ReadTimeout("slow", request=httpx.Request("GET", "http://a")),
        RuntimeError("bug", 1),
        OSError(5, "five"),
        KeyError("k"),
        ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
    ],
    ids=repr,
)
async def test_any_exception_can_be_copied(original: Exception, autojump_clock) -> None:
    async with coalescing(hang, dial=failing(original)) as upstream:
        errors = [each.error for each in await upstream.ends(upstream.start(), upstream.start())]
        assert [type(each) for each in errors] == [type(original)] * 2
        assert {str(each) for each in errors} == {str(original)}
        assert all(each is not None and each.args == original.args and each is not original for each in errors)
        # An internal error fails the calls, not the client.
        assert (await upstream.start().end()).error is original


async def fail_in_the_end(origin: Origin, timeout: float | None) -> Stream:
    """A dial that fails while it is cancelled."""

    async def crash() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the end")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(crash)
        await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("shared", [True, False])
async def test_an_exception_during_a_cancel_ends_no_other_call(shared: bool, autojump_clock) -> None:
    async with coalescing(hang, dial=fail_in_the_end, coalesce=shared) as upstream:
        for _ in range(2):
            made = upstream.start()
            await trio.sleep(1)
            made.cancel("client-gone")
            await trio.sleep(1)
            assert [each.kind for each in made.attempts] == [Kind.CLIENT_GONE]


async def test_an_exception_while_the_upstream_closes_is_not_raised_from_its_block(autojump_clock) -> None:
    async with coalescing(hang, dial=fail_in_the_end, cut=True) as upstream:
        made = upstream.start()
        await trio.testing.wait_all_tasks_blocked()
    assert isinstance(made.error, NotRunningError)
