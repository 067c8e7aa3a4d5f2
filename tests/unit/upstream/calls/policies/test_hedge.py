"""Hedges: what starts a hedge, which attempt wins, and how the others end."""

from __future__ import annotations

import socket
from functools import partial
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from tests.support.upstream.memory_dial import running_reader
from tests.support.upstream.scripted_upstream import HANGS, KEPT, OK, RESET, Script, Step, in_parts, response, scripted
from umbel.core.call import Call, CallContext, PreparedRequest, SingleCallOwner
from umbel.core.failure_kinds import Kind
from umbel.net.stream import PlainStream, Stream
from umbel.policy.hedge import HedgeRules
from umbel.policy.retry_budget import Budget, BudgetStatistics
from umbel.upstream import BreakerRules, Hedge, Retry, Transport
from umbel.upstream.errors import ConnectFailed, Malformed, ReadTimedOut
from umbel.upstream.replicas.origin import Origin

LOST = Kind.CANCELLED
EARLY = Hedge(0.05)
"""After 50 ms."""
LATE = Hedge(10.0)
"""Later than everything that these tests wait for, except failures."""


async def test_a_call_that_ends_in_time_is_made_once(autojump_clock) -> None:
    async with scripted([Step(0.04, 200)], hedge=EARLY) as upstream:
        assert (await upstream.call()).content == b"1"
        await trio.sleep(1)
        assert (len(upstream.script.made), trio.current_time()) == (1, 1.04)
        hedges = upstream.client.statistics().hedge
        assert (hedges.pending, hedges.hedges, hedges.won) == (0, 0, 0)


@pytest.mark.parametrize("pushing", [True, False])
async def test_a_slow_call_gets_a_hedge_and_the_first_response_wins(pushing: bool, autojump_clock) -> None:
    async with scripted([HANGS, Step(0.01, 200)], hedge=EARLY, pushing=pushing) as upstream:
        response = await upstream.call()
        assert (response.content, round(trio.current_time(), 9)) == (b"2", 0.06)
        assert (upstream.script.starts, upstream.causes) == ([0.0, 0.05], ["first", "hedge"])
        assert [(each.kind, each.status) for each in upstream.attempts] == [(LOST, None), (None, 200)]
        assert upstream.script.made[0].closed_at == trio.current_time(), "closed when the call returns, not later"
        hedges = upstream.client.statistics().hedge
        assert (hedges.pending, hedges.hedges, hedges.won) == (0, 1, 1)
        assert upstream.script.working == 0


@pytest.mark.parametrize("pushing", [True, False])
async def test_the_first_attempt_may_still_win(pushing: bool, autojump_clock) -> None:
    async with scripted([Step(0.06, 200), HANGS], hedge=EARLY, pushing=pushing) as upstream:
        response = await upstream.call()
        assert (response.content, trio.current_time()) == (b"1", 0.06)
        assert upstream.kinds == [None, LOST]
        hedges = upstream.client.statistics().hedge
        assert (hedges.hedges, hedges.won) == (1, 0)


async def test_hedges_start_one_delay_apart_up_to_max(autojump_clock) -> None:
    async with scripted([HANGS, HANGS, HANGS, Step(0.5, 200), HANGS], hedge=Hedge(0.125, 3)) as upstream:
        await upstream.call()
        assert (upstream.script.starts, trio.current_time()) == ([0.0, 0.125, 0.25, 0.375], 0.875)
        assert upstream.kinds == [LOST, LOST, LOST, None]


async def test_each_retry_may_have_as_many_hedges_as_the_first_attempt(autojump_clock) -> None:
    steps = [Step(0.0, 503), Step(0.0, 503), Step(1.0, 200)]
    async with scripted([*steps, Step(0.5, 200)], retry=Retry(), hedge=Hedge(0.25, 1)) as upstream:
        await upstream.ends_as(200)
        assert upstream.causes == ["first", "hedge", "retry", "hedge"]
        assert upstream.kinds == [None, None, LOST, None]


async def test_a_call_without_a_hedge_needs_no_task(autojump_clock) -> None:
    async with scripted([Step(1.0, 200)], hedge=LATE) as upstream, trio.open_nursery() as nursery:
        await upstream.call()
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(10):
            nursery.start_soon(upstream.call)
        await trio.sleep(0.5)
        assert upstream.client.statistics().hedge.pending == 10
        assert trio.lowlevel.current_statistics().tasks_living == before + 10, "the callers' own"


class Counting(SingleCallOwner):
    """Owner that counts the reports of its call."""

    ends = waits = 0

    def call_ended(self, call: Call) -> None:
        self.ends += 1
        super().call_ended(call)

    def call_waits(self, call: Call) -> None:
        self.waits += 1
        super().call_waits(call)


@pytest.mark.parametrize(
    ("second", "rules"),
    [
        (KEPT._replace(seconds=0.5), {"hedge": Hedge(0.25)}),
        (KEPT._replace(outcome=503, then=KEPT), {"retry": Retry(backoff=0.25)}),
    ],
    ids=["hedge", "retry"],
)
async def test_a_hedge_on_an_idle_connection_needs_no_task(second: Step, rules: dict[str, Any], autojump_clock) -> None:
    async with scripted([KEPT._replace(then=second)], **rules) as upstream:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(upstream.call)
        owner = Counting()
        call = upstream.client.new_call(
            PreparedRequest("GET", b"/", ()), context := CallContext(owner, "call", "upstream")
        )
        call.start(trio.current_time())
        call.send()
        await trio.sleep(1)
        assert (owner.waits, owner.ends, call.status) == (0, 1, 200)
        assert [each.reused for each in context.attempts] == [True, True]


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_responses_in_one_batch_of_events_the_first_wins(first: int) -> None:
    owner, pairs = Counting(), [socket.socketpair() for _ in range(2)]
    unused = iter(pairs)
    peers = [theirs for _, theirs in pairs]
    async with running_reader() as reader, trio.open_nursery() as nursery:

        async def dial(origin: Origin, timeout: float | None) -> PlainStream:
            await trio.lowlevel.checkpoint()
            return PlainStream(next(unused)[0], reader)

        async with Transport(["http://x"], hedge=Hedge(0.0), dial=dial, reader=reader) as transport:
            context = CallContext(owner, "call", "upstream")
            call = transport.new_call(PreparedRequest("GET", b"/", ()), context)
            nursery.start_soon(owner.perform, call)
            with trio.fail_after(5):
                while transport.statistics().pool.active < 2:
                    await trio.testing.wait_all_tasks_blocked()
            for number in (first, 1 - first):
                assert peers[number].recv(1000)
                peers[number].sendall(response(200, b"%d" % number))
            with trio.fail_after(5):
                while not owner.ends:
                    await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            assert (call.content, owner.ends) == (b"%d" % first, 1)
            assert sorted((each.kind or "", each.cause) for each in context.attempts) == [
                ("", ("first", "hedge")[first]),
                ("cancelled", ("hedge", "first")[first]),
            ]
            assert peers[first].recv(1000) == b""
            with pytest.raises(ConnectionResetError):  # The connection was closed before its response was read.
                peers[1 - first].recv(1000)
            assert (transport.statistics().pool.active, transport.statistics().pool.idle, len(reader)) == (0, 0, 0)
    for peer in peers:
        peer.close()


# Failures


@pytest.mark.parametrize("outcome", [ConnectFailed("no"), 502, 503, 504], ids=repr)
async def test_a_retryable_failure_starts_the_hedge_at_once(outcome: int | Exception, autojump_clock) -> None:
    for after in (10.0, "p95"):  # No percentile is known yet.
        async with scripted([Step(0.01, outcome), Step(0.02, 200)], hedge=Hedge(after)) as upstream:
            began = trio.current_time()
            await upstream.ends_as(200)
            assert round(trio.current_time() - began, 9) == 0.03
            assert upstream.causes == ["first", "hedge"]
            assert upstream.client.statistics().hedge.pending == 0


@pytest.mark.parametrize("outcome", [Malformed("x"), 500, ReadTimedOut("x")], ids=repr)
async def test_a_failure_that_is_not_retryable_is_the_result_at_once(outcome: int | Exception, autojump_clock) -> None:
    async with scripted([Step(0.01, outcome), OK], hedge=LATE) as upstream:
        await upstream.ends_as(outcome)
        assert len(upstream.script.made) == 1


@pytest.mark.parametrize("outcome", [Malformed("x"), 500, 503, ConnectFailed("x")], ids=repr)
async def test_a_failure_does_not_end_a_race_with_an_attempt_under_way(
    outcome: int | Exception, autojump_clock
) -> None:
    for steps in ([Step(0.06, outcome), Step(1.0, 200)], [Step(1.0, 200), Step(0.01, outcome)]):
        async with scripted(steps, hedge=EARLY) as upstream:
            await upstream.ends_as(200)
            assert len(upstream.script.made) == 2


@pytest.mark.parametrize("first_is_first", [True, False])
@pytest.mark.parametrize("outcome", [503, 500, ConnectFailed("x"), Malformed("x")], ids=repr)
async def test_if_all_attempts_fail_the_first_attempts_failure_is_the_result(
    outcome: int | Exception, first_is_first: bool, autojump_clock
) -> None:
    steps = [Step(0.06 if first_is_first else 1.0, outcome), Step(0.1, Malformed("the hedge's"))]
    async with scripted(steps, hedge=EARLY) as upstream:
        await upstream.ends_as(outcome)
        assert len(upstream.script.made) == 2


async def test_a_failure_with_retry_after_starts_no_hedge(autojump_clock) -> None:
    async with scripted([Step(0.01, 503, {"retry-after": "1"}), OK], hedge=LATE) as upstream:
        await upstream.ends_as(503)
        assert len(upstream.script.made) == 1


@pytest.mark.parametrize("first", [True, False])
async def test_an_internal_error_ends_the_call_and_all_its_attempts(first: bool, autojump_clock) -> None:
    bug = RuntimeError("a bug")
    steps = [Step(0.06, bug), HANGS] if first else [HANGS, Step(0.01, bug)]
    async with scripted(steps, hedge=EARLY) as upstream:
        await upstream.ends_as(bug)
        assert sorted(filter(None, upstream.kinds)) == [LOST, Kind.INTERNAL]


# Which calls are hedged


@pytest.mark.parametrize(
    ("method", "more", "attempts"),
    [
        ("GET", {}, 2),
        ("PUT", {"content": b"whole"}, 2),
        ("POST", {"content": b"whole"}, 1),
        ("POST", {"content": b"whole", "headers": {"idempotency-key": "k"}}, 2),
    ],
)
async def test_only_idempotent_requests_are_hedged(method: str, more: dict, attempts: int, autojump_clock) -> None:
    async with scripted([Step(1.0, 200)], hedge=EARLY) as upstream:
        await upstream.call(method=method, **more)
        assert len(upstream.script.made) == attempts


async def test_the_first_head_of_streamed_responses_wins(autojump_clock) -> None:
    async with scripted([HANGS, Step(0.01, in_parts(200, b"2"))], hedge=EARLY) as upstream:
        response = await upstream.stream()
        assert round(trio.current_time(), 9) == 0.06
        assert [made.closed_at for made in upstream.script.made] == [trio.current_time(), None]
        assert await response.aread() == b"2"


async def test_an_attempt_with_a_slow_body_is_overtaken_and_closed(autojump_clock) -> None:
    head_alone = Step(0.01, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsome", holds=True)
    async with scripted([head_alone, Step(0.0, 200)], hedge=EARLY) as upstream:
        response = await upstream.call()
        assert (response.content, trio.current_time()) == (b"2", 0.05)
        assert [(each.kind, each.status) for each in upstream.attempts] == [(LOST, 200), (None, 200)]


@pytest.mark.parametrize(
    ("own", "starts"), [(HedgeRules(seconds=0.25), [0.0, 0.25]), (HedgeRules(seconds=0.25, max=0), [0.0])]
)
@pytest.mark.parametrize("of_the_upstream", [Hedge(0.5), None])
async def test_a_calls_own_hedge_rules_replace_the_upstreams(
    own: HedgeRules, starts: list[float], of_the_upstream: HedgeRules | None, autojump_clock
) -> None:
    async with scripted([Step(1.0, 200)], hedge=of_the_upstream) as upstream:
        await upstream.call(hedge=own)
        assert upstream.script.starts == starts


async def test_no_hedge_begins_at_the_deadline_or_later(autojump_clock) -> None:
    for budget, attempts in ((0.05, 1), (0.06, 2)):
        async with scripted([Step(0.055, 200)], hedge=EARLY) as upstream:
            await upstream.call(budget=budget)
            assert len(upstream.script.made) == attempts


async def test_no_hedge_begins_while_the_breaker_is_open(autojump_clock) -> None:
    """The breaker opens while the first attempt is under way, or by the failure of that attempt."""
    breaker = BreakerRules(min_requests=1)
    async with scripted([Step(1.0, 200), Step(0.01, 500)], hedge=EARLY, breaker=breaker) as upstream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(upstream.ends_as, 200))
            await trio.testing.wait_all_tasks_blocked()
            await upstream.ends_as(500, hedge=HedgeRules(seconds=0.25, max=0))
        assert len(upstream.script.made) == 2
    async with scripted([Step(0.04, 503)], hedge=EARLY, breaker=breaker) as upstream:
        await upstream.ends_as(503)
        assert len(upstream.script.made) == 1


# Budget


async def test_without_budget_the_call_waits_for_its_first_attempt(autojump_clock) -> None:
    rules = {"hedge": Hedge(0.25), "budget": Budget(0.0, 2)}
    async with scripted([Step(1.0, 200)], **rules) as upstream, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(upstream.call)
        await trio.sleep(0.5)
        statistics = upstream.client.statistics()
        assert (len(upstream.script.made), statistics.hedge.hedges) == (12, 2)
        assert statistics.budget == BudgetStatistics(active=10, extra=2, limit=2, denied=8)


async def test_retries_and_hedges_share_a_budget_and_count_a_call_once(autojump_clock) -> None:
    steps = [Step(0.0, 503), Step(0.0, 503), Step(1.0, 200)]
    async with scripted(steps, retry=Retry(), hedge=LATE, budget=Budget(0.0, 1)) as upstream:
        async with trio.open_nursery() as nursery:
            # The hedge is charged and given back, then the retry is charged.
            nursery.start_soon(partial(upstream.ends_as, 200))
            await trio.sleep(0.5)
            assert upstream.client.statistics().budget == BudgetStatistics(active=1, extra=1, limit=1, denied=0)
        assert upstream.causes == ["first", "hedge", "retry"]


@pytest.mark.parametrize("policy", ["p2c", "round_robin"])
async def test_each_attempt_takes_a_replica_that_the_call_has_not_tried(policy: str, autojump_clock) -> None:
    replicas = [f"http://{host}" for host in "abcd"]
    steps = [Step(0.0, ConnectFailed("no")), Step(0.0, 503), HANGS, Step(0.01, 200)]
    async with scripted(steps, replicas, retry=Retry(), hedge=Hedge(1.0), balance=policy, rng=Random(1)) as upstream:
        await upstream.ends_as(200, budget=100.0)
        assert sorted(made.host for made in upstream.script.made) == ["a", "b", "c", "d"]
        assert [(each.cause, each.kind, each.status) for each in upstream.attempts] == [
            ("first", Kind.CONNECT, None),
            ("hedge", None, 503),
            ("retry", LOST, None),
            ("hedge", None, 200),
        ]


async def test_bytes_that_come_in_the_turn_in_which_an_attempt_is_cut_are_not_read(autojump_clock) -> None:
    """Both responses arrive in one turn, so both tasks are woken before the first response cuts the other attempt."""

    class ReturnsWhatHadArrived(Script):
        async def __call__(self, origin: Origin, timeout: float | None) -> Stream:
            made = await super().__call__(origin, timeout)

            async def receive_some() -> bytes:
                await made._arrived.wait()  # type: ignore[attr-defined]
                return made._received  # type: ignore[attr-defined,no-any-return]

            made.receive_some = receive_some  # type: ignore[method-assign]
            return made

    steps = [Step(0.5, 200), Step(0.25, 200)]
    async with scripted(steps, hedge=Hedge(0.25), pushing=False, dial=ReturnsWhatHadArrived) as upstream:
        await upstream.ends_as(200)
        assert sorted(upstream.kinds, key=str) == [None, LOST]
        assert upstream.records.logged == []


# Cut from outside


@pytest.mark.parametrize(
    ("reason", "kind"), [("client-gone", Kind.CLIENT_GONE), ("a sibling failed", LOST), (None, LOST)]
)
async def test_a_cancel_from_outside_reaches_all_attempts_with_its_reason(
    reason: str | None, kind: Kind, autojump_clock
) -> None:
    async with scripted([HANGS], hedge=Hedge(0.25, 2)) as upstream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upstream.call)
            await trio.sleep(0.6)
            assert upstream.script.working == 3
            nursery.cancel_scope.cancel(reason=reason)
        assert [(each.kind, each.ended_at) for each in upstream.attempts] == [(kind, 0.6)] * 3


async def test_at_the_deadline_every_attempt_is_a_timeout(autojump_clock) -> None:
    async with scripted([HANGS], hedge=Hedge(0.25)) as upstream:
        with trio.CancelScope(deadline=1.0):
            await upstream.call(budget=1.0)
        assert upstream.kinds == [Kind.TIMEOUT, Kind.TIMEOUT]


async def test_a_hedge_due_in_the_turn_of_the_cancel_does_not_delay_the_cancel(autojump_clock) -> None:
    async with scripted([], hedge=Hedge(0.25, 9)) as upstream:
        for number in range(1, 31):  # The scheduler decides at random which of the two comes first.
            upstream.script.made.clear()
            upstream.script.steps = [RESET, HANGS]
            with trio.CancelScope(deadline=number * 0.5):
                await upstream.call()
            assert trio.current_time() == number * 0.5


async def test_no_attempt_outlives_its_call_even_if_its_cancel_takes_time(autojump_clock) -> None:
    class Stubborn(Script):
        connecting = 0

        async def __call__(self, origin, timeout):
            self.connecting += 1
            try:
                return await super().__call__(origin, timeout)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                self.connecting -= 1

    failing = Step(1000.0, ConnectFailed("late"))
    for steps in ([failing, Step(0.0, 200)], [failing, failing]):
        async with scripted(steps, hedge=Hedge(0.25), dial=Stubborn) as upstream:
            with trio.move_on_after(5):
                await upstream.call()
            assert isinstance(upstream.script, Stubborn)
            assert upstream.script.connecting == 0
            upstream.assert_nothing_left()


def test_an_invalid_delay_or_number_of_hedges_is_refused() -> None:
    for more in ({"after": "95"}, {"after": -1.0}, {"after": 1.0, "max": -1}):
        with pytest.raises(ValueError, match=r"is not a delay|not negative|not be negative"):
            Hedge(**more)
