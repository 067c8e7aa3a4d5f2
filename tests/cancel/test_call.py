"""Cancels of calls at each checkpoint in turn, and by their owner in each state: nothing is left.

No queue slot, no share of the retry budget, no replica slot, no connection, no timer, and no later callback.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.support.checkpoints import for_every_checkpoint
from tests.support.upstream.calls import perform, request_facts, url
from tests.support.upstream.limited_calls import limit, limiter
from tests.support.upstream.raw_server import RawServer, answering, open_sockets, raw_server, response
from tests.support.upstream.replica_sources import ChangingReplicas
from tests.support.upstream.scripted_upstream import HANGS, KEPT, OK, RESET, Scripted, Step, scripted
from umbel.config.schema.sections import Upstream
from umbel.core.call import Call, CallContext, PreparedRequest, StepTimeouts
from umbel.core.failure_kinds import Kind
from umbel.policy.breaker import BreakerState
from umbel.upstream import BreakerRules, HealthRules, Hedge, Retry, build
from umbel.upstream.errors import ConnectFailed, ConnectionReset, NameFailed
from umbel.upstream.replicas.origin import Origin, Replica

GET = PreparedRequest("GET", b"/", ())
LARGE = PreparedRequest("PUT", b"/", (), b"x" * 100_000)
REFUSED = Step(0.1, ConnectFailed("no"))
PIECES = Step(0.1, (b"HTTP/1.1 200 OK\r\n", b"Content-Length: 4\r\nConnection: close\r\n\r\n", b"ab", b"cd"))
HEDGED = {"hedge": Hedge(0.25, 2)}
RETRIED = {"retry": Retry(4)}
LIMITS = StepTimeouts(1e5, 1e5, 1e5, 1e5)

CASES: dict[str, tuple[list[Step], dict[str, Any], PreparedRequest, int]] = {
    # The parts of each case, and its minimum number of checkpoints.
    "a new connection": ([PIECES], {}, GET, 4),
    "a kept connection": ([KEPT._replace(seconds=0.1)], {}, GET, 2),
    "a dead kept connection": ([KEPT._replace(then=RESET), OK, OK], {}, GET, 2),
    "a large request": ([PIECES], {}, LARGE, 4),
    "retried statuses": ([Step(0.1, 503), OK], RETRIED, GET, 6),
    "retried errors": ([REFUSED, REFUSED, RESET, OK], RETRIED, GET, 9),
    "the hedge wins": ([HANGS, OK], HEDGED, GET, 4),
    "the first wins": ([Step(0.4, 200), HANGS], HEDGED, GET, 4),
    "the third wins": ([HANGS, HANGS, OK], HEDGED, GET, 6),
    "an early failure": ([REFUSED, OK], HEDGED, GET, 4),
    "followed redirects": ([Step(0.1, 302, {"location": "/b"}), RESET, OK], RETRIED, GET, 2),
    "hedged and retried": ([HANGS, Step(0.1, 503), Step(0.1, 503), HANGS, OK], HEDGED | RETRIED, GET, 8),
}


async def receive(upstream: Scripted) -> None:
    """Make a call whose response is received in parts."""
    got = await upstream.stream()
    try:
        await got.aread()
    finally:
        await got.aclose()


@pytest.mark.parametrize("way", ["pushed", "pulled", "with limits", "streamed"])
@pytest.mark.parametrize(("steps", "rules", "prepared", "at_least"), CASES.values(), ids=CASES.keys())
async def test_a_call_leaves_nothing(
    steps: list[Step], rules: dict[str, Any], prepared: PreparedRequest, at_least: int, way: str, autojump_clock
) -> None:
    follows = steps[0].outcome == 302
    breaker = BreakerRules(min_requests=10**6)
    async with scripted(steps, pushing=way != "pulled", delay=0.01, breaker=breaker, **rules) as upstream:

        async def call() -> None:
            upstream.script.made.clear()
            if way == "streamed":
                await receive(upstream)
            else:
                limits = {"steps": LIMITS, "limit": 1e5} if way == "with limits" else {}
                await perform(upstream.client, prepared, contexts=upstream.contexts, follows=follows, **limits)

        def check() -> None:
            upstream.assert_nothing_left()
            assert upstream.script.working == 0
            if upstream.contexts:
                # Running attempts are recorded as "client-gone"; attempts that ended before keep their result.
                kinds = {each.kind for each in upstream.attempts}
                assert kinds <= {None, Kind.CLIENT_GONE, Kind.CANCELLED, Kind.CONNECT, Kind.RESET}

        if steps[0].holds:
            await call()
        assert await for_every_checkpoint(call, check) >= at_least


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("max_concurrency", [1, "auto"])
async def test_cancelled_calls_in_a_queue_leave_no_slot_and_no_count(
    streamed: bool, max_concurrency: Any, autojump_clock
) -> None:
    rules = {"breaker": BreakerRules(), "max_concurrency": max_concurrency, "timeout": 100.0}
    async with scripted([PIECES], ["http://a", "http://b"], delay=0.1, **rules) as upstream:

        async def fetch() -> None:
            await (receive(upstream) if streamed else upstream.call(limit=100.0))

        async def three() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(fetch)

        async def check() -> None:
            upstream.assert_nothing_left()
            assert [replica.failed for replica in upstream.client.statistics().balance.replicas] == [0, 0]
            state, _, failures = upstream.breaker
            assert (state, failures) == (BreakerState.CLOSED, 0)
            await fetch()

        assert await for_every_checkpoint(three, check) > 5


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("max_concurrency", [1, 10])
async def test_cancelled_calls_that_wait_for_a_limit_leave_no_line_and_spend_nothing(
    streamed: bool, max_concurrency: int, autojump_clock
) -> None:
    async with scripted([PIECES], delay=0.1, max_concurrency=max_concurrency, **RETRIED) as upstream:
        (queue,) = limit(upstream, limiter(key="'all'", burst=2))

        async def fetch() -> None:
            await (receive(upstream) if streamed else upstream.call(limit=100.0))

        async def five() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(fetch)

        async def check() -> None:
            upstream.assert_nothing_left()
            assert (queue.lines, queue.limiter.waiting) == ({}, 0)
            admitted.append(queue.limiter.statistics().admitted)  # type: ignore[attr-defined]
            # The tasks that connect may not have begun.
            assert 0 <= admitted[-1] - admitted[-2] - len(upstream.script.made) <= 2
            await trio.sleep(10)  # Nothing is spent any more.
            upstream.script.made.clear()

        admitted = [0]
        assert await for_every_checkpoint(five, check) > 5


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_probe_of_a_breaker_leaves_its_slot_to_the_next_call(streamed: bool, autojump_clock) -> None:
    async with scripted([], ["http://a", "http://b"], breaker=BreakerRules(min_requests=1)) as upstream:

        async def fetch() -> None:
            await (receive(upstream) if streamed else upstream.call())

        async def open_and_probe() -> None:
            upstream.script.made.clear()
            upstream.script.steps = [Step(0.1, 503), PIECES]
            await fetch()
            await trio.sleep(5)
            await fetch()

        async def check() -> None:
            # Whether the breaker is open or half-open, the next call after the pause is admitted and closes it.
            upstream.script.steps = [OK]
            await trio.sleep(5)
            await fetch()
            assert upstream.breaker[0] is BreakerState.CLOSED

        assert await for_every_checkpoint(open_and_probe, check) > 4


@pytest.mark.parametrize("pushing", [True, False])
async def test_a_client_with_all_policies_leaves_nothing_with_its_block(pushing: bool, autojump_clock) -> None:
    made: list[Scripted] = []

    async def enter_to_exit() -> None:
        rules = {**HEDGED, **RETRIED, "breaker": BreakerRules(), "max_concurrency": 1}
        steps = [HANGS, Step(0.1, 503), Step(0.1, 503), HANGS, OK, HANGS]
        async with scripted(steps, pushing=pushing, **rules) as upstream, trio.open_nursery() as nursery:
            made.append(upstream)
            for _ in range(2):
                nursery.start_soon(upstream.call)
            await trio.sleep(2)
            nursery.cancel_scope.cancel()

    def check() -> None:
        for upstream in made:
            upstream.assert_nothing_left()
            assert upstream.script.in_flight == 0
        made.clear()

    assert await for_every_checkpoint(enter_to_exit, check) > 20


# Health checks, and replicas that are added and removed


async def test_health_checks_leave_nothing(autojump_clock) -> None:
    made: list[Scripted] = []

    def act(origin: Origin) -> Step:
        return Step(0.1, ConnectFailed("no")) if origin.host == "b" else PIECES

    async def enter_to_exit() -> None:
        async with scripted(act, ["http://a", "http://b"], health=HealthRules(every=1.0)) as upstream:
            made.append(upstream)
            await trio.sleep(5)
            with suppress(ConnectFailed):
                await upstream.call()
            # A check may be under way at this moment; their phases are random.
            while (pool := upstream.client.statistics().pool).active or pool.connecting:  # noqa: ASYNC110
                await trio.sleep(0.05)

    def check() -> None:
        for upstream in made:
            upstream.assert_nothing_left()
            assert upstream.script.in_flight == 0
        made.clear()

    assert await for_every_checkpoint(enter_to_exit, check) > 20


@pytest.mark.parametrize("streamed", [False, True])
async def test_replicas_that_are_added_and_removed_leave_nothing(streamed: bool, autojump_clock) -> None:
    a, b, c = (Replica.parse(f"http://{host}") for host in "abc")
    source = ChangingReplicas(a, b)
    made: list[Scripted] = []

    async def call(upstream: Scripted) -> None:
        with suppress(NameFailed):
            await (receive(upstream) if streamed else upstream.call())

    async def enter_to_exit() -> None:
        source.become(a, b)
        rules = {"health": HealthRules(every=0.5)}
        async with scripted([PIECES], source, **rules) as upstream, trio.open_nursery() as nursery:
            made.append(upstream)
            for replicas in ((b, c), (a,), (), (b,)):
                for _ in range(2):
                    nursery.start_soon(call, upstream)
                await trio.sleep(0.15)
                source.become(*replicas)

    def check() -> None:
        assert source.entered == 0
        for upstream in made:
            upstream.assert_nothing_left()
            assert upstream.script.in_flight == 0
            assert {each.failed for each in upstream.client.statistics().balance.replicas} <= {0}
        made.clear()

    assert await for_every_checkpoint(enter_to_exit, check) > 20


# Over real sockets


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("policies", [{}, {"retry": {}, "hedge": {"after": "1ms"}, "coalesce": True, "breaker": {}}])
async def test_an_upstream_over_real_sockets_leaves_no_descriptor(scheme: str, policies: dict, tmp_path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = None
    if scheme == "https":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(tls)
    async with raw_server(answering(response(b"x" * 100)), tls=tls) as server:
        # A host name, so that the look-up and the choice of an address are cancelled too.
        config = Upstream(urls=(url(server, scheme, "localhost"),), tls={"ca": str(tmp_path / "ca.pem")}, **policies)
        await _cancel_everywhere(config, server)


async def _cancel_everywhere(config: Upstream, server: RawServer) -> None:
    before = open_sockets()

    async def call() -> None:
        async with build("upstream", config) as client:
            for _ in range(2):
                assert (await perform(client, GET)).content == b"x" * 100

    async def check() -> None:
        await server.all_closed()
        # Descriptors of the client; those of the upstream are closed by its handlers.
        assert open_sockets() == before

    assert await for_every_checkpoint(call, check) > 8


# Cancelled by their owner, in each state


class Owner:
    """Owner that cancels its call, runs ``finish`` and fails the test if it is notified of the end."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.finishing = 0
        self.heard: list[Call] = []

    def call_ended(self, call: Call) -> None:
        self.heard.append(call)

    def call_waits(self, call: Call) -> None:
        self._nursery.start_soon(self._finish, call)

    async def _finish(self, call: Call) -> None:
        self.finishing += 1
        await call.finish()
        self.finishing -= 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"
STATES: dict[str, tuple[list[Step], dict[str, Any], PreparedRequest, Any]] = {
    # The state of the call after a second, and the kinds of the attempts that the cancel records.
    "connecting": ([OK], {"delay": 2.0}, GET, [Kind.CLIENT_GONE]),
    "sending": ([OK._replace(deaf=True)], {}, LARGE, [Kind.CLIENT_GONE]),
    "sent": ([HANGS], {}, GET, [Kind.CLIENT_GONE]),
    "head": ([Step(0.5, HEAD, holds=True)], {}, GET, [Kind.CLIENT_GONE]),
    "in the pause before a retry": ([Step(0.0, 503, {"retry-after": "2"})], RETRIED, GET, [None]),
    "retried": ([Step(0.0, 503), HANGS], RETRIED, GET, [None, Kind.CLIENT_GONE]),
    "hedged": ([HANGS], HEDGED, GET, [Kind.CLIENT_GONE] * 3),
    "hedges failed": ([HANGS, Step(0.1, 500), REFUSED], HEDGED, GET, [Kind.CLIENT_GONE, None, Kind.CONNECT]),
    "first failed": ([Step(0.1, 500), HANGS], {"hedge": Hedge(0.05)}, GET, [None, Kind.CLIENT_GONE]),
}


async def cancelled(upstream: Scripted, call: Call, owner: Owner) -> None:
    """Cancel the call twice, and check that nothing is left at once and that nothing follows."""
    heard = list(owner.heard)
    connected = owner.finishing == 0
    for _ in range(2):
        call.cancel("client-gone")
        upstream.assert_calls_over()
        if connected:
            assert upstream.script.in_flight == 0
    await call.finish()
    await trio.testing.wait_all_tasks_blocked()
    upstream.assert_nothing_left()
    assert (owner.finishing, upstream.script.in_flight) == (0, 0)
    await trio.sleep(5000)
    upstream.assert_nothing_left()
    assert owner.heard == heard


@pytest.mark.parametrize("mode", ["whole", "stream"])
@pytest.mark.parametrize("pushing", [True, False])
@pytest.mark.parametrize("limit", [None, 1000.0])
@pytest.mark.parametrize(("steps", "rules", "prepared", "kinds"), STATES.values(), ids=STATES.keys())
async def test_a_running_call_is_cancelled_by_its_owner_at_once(
    steps, rules, prepared, kinds, limit: float | None, pushing: bool, mode: Any, autojump_clock
) -> None:
    # The owner of a stream is notified of the head.
    told = mode == "stream" and steps[0].outcome == HEAD
    async with (
        scripted(steps, pushing=pushing, breaker=BreakerRules(), **rules) as upstream,
        trio.open_nursery() as nursery,
    ):
        owner = Owner(nursery)
        facts = request_facts(1e6)
        deadline = 1e6 if limit is None else trio.current_time() + limit
        context = CallContext(owner, "call", "upstream", facts, deadline, limit=limit, steps=LIMITS)
        call = upstream.client.new_call(prepared, context, mode)
        call.start(trio.current_time())
        call.send()
        await trio.sleep(1)
        await cancelled(upstream, call, owner)
        assert [each.kind for each in sorted(context.attempts, key=lambda each: each.started_at)] == kinds
        assert (owner.heard, call.status) == (([call], 200) if told else ([], None))
        # The receiving task must not take a cancelled response for a complete one.
        assert isinstance(call.error, ConnectionReset) if told else call.error is None
        assert upstream.client.statistics().pool.opened <= 3


@pytest.mark.parametrize("started", [False, True])
async def test_a_call_that_is_new_or_queued_is_cancelled_by_its_owner_at_once(started: bool, autojump_clock) -> None:
    async with (
        scripted([HANGS], max_concurrency=1, retry=Retry(), breaker=BreakerRules()) as upstream,
        trio.open_nursery() as nursery,
    ):
        owner = Owner(nursery)
        context = CallContext(owner, "call", "upstream", request_facts(), 1e6, limit=1e6, steps=LIMITS)
        calls = [upstream.client.new_call(GET, context) for _ in range(2)]
        calls[0].start(trio.current_time())
        calls[0].send()
        await trio.testing.wait_all_tasks_blocked()
        timers = len(upstream.client.timers)
        if started:
            calls[1].start(trio.current_time())
            calls[1].send()
            assert upstream.client.statistics().bulkhead.waiting == 1
        calls[1].cancel("client-gone")
        bulkhead = upstream.client.statistics().bulkhead
        assert (bulkhead.waiting, bulkhead.in_flight, len(upstream.client.timers)) == (0, 1, timers)
        await cancelled(upstream, calls[0], owner)
        assert len(upstream.script.made) == 1


async def test_a_call_cancelled_when_its_connection_was_just_made_leaves_none(
    autojump_clock,
) -> None:
    """The dial has returned, and the waiting task has not run yet."""
    async with trio.open_nursery() as nursery, scripted([HANGS], delay=1.0) as upstream:
        owner = Owner(nursery)
        for _ in range(20):  # trio chooses at random which of two tasks runs first.
            context = CallContext(owner, "call", "upstream", request_facts())
            call = upstream.client.new_call(GET, context)
            call.start(trio.current_time())
            call.send()
            await trio.sleep(1.0)
            await cancelled(upstream, call, owner)


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(3):
        await trio.sleep(0.1)
        yield b"piece"


@pytest.mark.parametrize("pushing", [True, False])
async def test_a_call_whose_request_is_a_stream_leaves_nothing(pushing: bool, autojump_clock) -> None:
    async with scripted([PIECES], pushing=pushing, delay=0.1) as upstream:

        async def call() -> None:
            got = await upstream.stream("POST", content=pieces())
            try:
                assert await got.aread() == b"abcd"
            finally:
                await got.aclose()

        assert await for_every_checkpoint(call, upstream.assert_nothing_left) > 10
