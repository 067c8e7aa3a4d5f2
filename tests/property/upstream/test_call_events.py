"""A call ends once and leaves nothing, in any order of its events and with several events in one turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from umbel.core.call import Call, CallContext, Mode, PreparedRequest, StreamingCall, StreamLimits
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.core.model import RequestFacts, Trace
from umbel.net.stream import Listener, PlainStream
from umbel.policy.replicas.ejection import EjectionRules
from umbel.policy.retry_budget import Budget
from umbel.upstream import BreakerRules, Client, Hedge, Policies, Pool, Retry
from umbel.upstream.errors import ConnectFailed
from umbel.upstream.replicas.origin import Origin

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
PIECES = {
    "answer": HEAD + b"ok",
    "head": HEAD,
    "rest": b"ok",
    "unavailable": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
    "last": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "too much": HEAD + b"okok",
    "endless": b"HTTP/1.1 200 OK\r\n\r\nbody",
    "nonsense": b"nonsense\r\n\r\n",
}


class ScriptedStream(PlainStream):
    """A stream without a socket, whose events the test causes. As the real one, it reports nothing when closed."""

    def __init__(self) -> None:
        self._closed = False
        self._listener: Listener | None = None
        self.unsent = b""
        self.send_error = None
        self.ended_at = None
        self.requests = 0

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        self.requests += 1
        self._listener = listener

    def is_quiet(self) -> bool:
        return not self._closed

    async def receive_some(self, limit: int = 0) -> bytes:
        """Receive nothing: the test pushes all bytes."""
        await trio.sleep_forever()
        return b""

    async def receive_ready(self, limit: int = 0) -> None:
        """Nothing is there."""

    def received_ago(self) -> None:
        """There is no kernel to ask."""

    def close_now(self) -> None:
        if not self._closed:
            self._closed = True
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.on_error(trio.ClosedResourceError("closed"))

    def close(self) -> None:
        self.close_now()

    def happens(self, what: str) -> None:
        """Report an event as the socket reader does."""
        listener = self._listener
        if listener is None:
            return
        if what == "eof":
            self._listener = None
            listener.on_eof()
        elif what == "error":
            self._listener = None
            listener.on_error(trio.BrokenResourceError("reset"))
        elif not listener.on_data(PIECES[what]) and self._listener is listener:
            self._listener = None


class Dials:
    """Dials that wait until the test ends them."""

    def __init__(self) -> None:
        self.pending: list[tuple[trio.Event, list[bool]]] = []
        self.streams: list[ScriptedStream] = []

    async def __call__(self, origin: Origin, timeout: float | None) -> ScriptedStream:
        event, succeeds = trio.Event(), [False]
        self.pending.append((event, succeeds))
        await event.wait()
        if not succeeds[0]:
            raise ConnectFailed("refused")
        stream = ScriptedStream()
        self.streams.append(stream)
        return stream

    def end(self, place: int, *, success: bool) -> None:
        if self.pending:
            event, succeeds = self.pending.pop(place % len(self.pending))
            succeeds[0] = success
            event.set()


class Owner:
    """Owner that keeps the reports of calls; ``finish`` runs when the test starts it."""

    def __init__(self) -> None:
        self.ended: list[Call] = []
        self.waits: list[Call] = []

    def call_ended(self, call: Call) -> None:
        self.ended.append(call)

    def call_waits(self, call: Call) -> None:
        self.waits.append(call)


POLICIES: dict[str, Callable[[], Policies]] = {
    "plain": lambda: Policies(max_concurrency=2, max_queue=2),
    "retried": lambda: Policies(retry=Retry(3, backoff=0.5, max_backoff=1.0), budget=Budget(0.2, 1), max_concurrency=3),
    "hedged": lambda: Policies(hedge=Hedge(0.5, 2), max_concurrency=3),
    "all": lambda: Policies(
        retry=Retry(2, backoff=0.5),
        hedge=Hedge(0.5),
        breaker=BreakerRules(min_requests=3, open_for=1.0),
        max_concurrency="auto",
        ejection=EjectionRules(failures=2),
        coalesce=True,
    ),
}

place = st.integers(0, 5)
EVENTS = st.one_of(
    st.tuples(st.just("start"), st.sampled_from(["GET", "POST"]), st.sampled_from([None, 0.7])),
    st.tuples(st.just("stream"), place, st.sampled_from([*PIECES, "eof", "error"])),
    st.tuples(st.just("connected"), place, st.booleans()),
    st.tuples(st.just("cancel"), place, st.sampled_from(["client-gone", "decided"])),
    st.tuples(st.just("send"), st.just(0), st.just(None)),
    st.tuples(st.just("finish"), st.just(0), st.just(None)),
    st.tuples(st.just("all connected"), st.just(0), st.just(None)),
    st.tuples(st.just("turn"), st.just(0), st.just(None)),
    st.tuples(st.just("time"), st.sampled_from([0.1, 0.6, 1.5]), st.just(None)),
)


_ASKED = [("start", "GET", None), ("all connected", 0, None)]
BEGINNINGS = st.sampled_from(
    [
        [],
        [*_ASKED, ("time", 0.6, None), ("all connected", 0, None)],
        [*_ASKED, ("stream", 0, "unavailable"), ("time", 1.5, None), ("all connected", 0, None)],
        [*_ASKED, ("stream", 0, "answer"), ("start", "GET", None), ("stream", 0, "eof")],
    ]
)
"""Sequences that are rarely generated: a hedge, a retry, and an ended kept connection."""


async def _receive(call: StreamingCall) -> None:
    with suppress(UpstreamError):
        await call.receive()


class World:
    """Some calls to one upstream of three replicas."""

    def __init__(self, policies: Policies, clock: MockClock, nursery: trio.Nursery, mode: Mode) -> None:
        self._mode = mode
        self.dials, self.owner, self.calls = Dials(), Owner(), []
        self.cancelled: list[Call] = []
        self.started: list[Call] = []
        """The calls that were not sent."""
        pool = Pool(max_connections=None, dial=self.dials)
        self.client = Client("u", ["http://a", "http://b", "http://c"], policies, pool)
        self._clock, self._nursery = clock, nursery

    async def happens(self, event: tuple[str, Any, Any]) -> None:
        """Cause an event. Only ``turn`` and ``time`` let other tasks run; all other events happen in one turn."""
        kind, first, second = event
        if kind == "start":
            self.start(first, second)
        elif kind == "stream":
            busy = [stream for stream in self.dials.streams if stream._listener is not None]
            if busy:
                busy[first % len(busy)].happens(second)
        elif kind == "connected":
            self.dials.end(first, success=second)
        elif kind == "cancel" and self.calls:
            self.cancel(self.calls[first % len(self.calls)], second)
        elif kind == "send":
            self.send()
        elif kind in ("receive", "take the rest", "become a stream", "close") and self.owner.ended:
            call = self.owner.ended[first % len(self.owner.ended)]
            if isinstance(call, StreamingCall) and call.error is None:
                await self._use(call, kind)
        elif kind == "finish" and self.owner.waits:
            self._nursery.start_soon(self.owner.waits.pop(0).finish)
        elif kind == "all connected":
            await self.connect_all()
        elif kind == "turn":
            self.send()
            await wait_all_tasks_blocked()
        elif kind == "time":
            self.send()
            self._clock.jump(first)
            await wait_all_tasks_blocked()

    async def _use(self, call: StreamingCall, how: str) -> None:
        if how == "take the rest":
            call.take_rest()
        elif how == "become a stream":
            call.become_stream()
        elif how == "close":
            await call.aclose()
        else:
            self._nursery.start_soon(_receive, call)

    async def connect_all(self) -> None:
        """Give each waiting call its task and its connection, so that long sequences are reached."""
        self.send()
        while self.owner.waits:
            self._nursery.start_soon(self.owner.waits.pop(0).finish)
        await wait_all_tasks_blocked()
        while self.dials.pending:
            self.dials.end(0, success=True)
        await wait_all_tasks_blocked()

    def start(self, method: str, limit: float | None) -> None:
        now = trio.current_time()
        request = RequestFacts("r", Trace("1" * 32), "GET", "/", "/", now, now + 100)
        deadline = now + (limit or 100)
        context = CallContext(self.owner, "call", "u", request, deadline, limit=limit)
        context.stream_limits = StreamLimits(first_byte=1.0, lifetime=2.0) if method == "GET" else None
        call = self.client.new_call(PreparedRequest(method, b"/", ()), context, self._mode)
        self.calls.append(call)
        call.start(now)
        self.started.append(call)

    def send(self) -> None:
        """Send the calls that were started, as their owner does at the end of its turn."""
        started, self.started = self.started, []
        for call in started:
            call.send()

    def cancel(self, call: Call, reason: str) -> None:
        if all(ended.context is not call.context for ended in self.owner.ended):
            self.cancelled.append(call)
        call.cancel(reason)

    def assert_over(self) -> None:
        """Each call has ended once, and nothing is left of any."""
        ended = [call.context for call in self.owner.ended]
        cancelled = {call.context for call in self.cancelled}
        assert len(ended) == len(set(ended))
        assert set(ended) | cancelled == {call.context for call in self.calls}
        assert set(ended) & cancelled == set()
        statistics = self.client.statistics()
        assert (statistics.bulkhead.in_flight, statistics.bulkhead.waiting) == (0, 0)
        assert (statistics.budget.active, statistics.budget.extra, statistics.hedge.pending) == (0, 0, 0)
        assert (statistics.pool.active, statistics.pool.connecting, statistics.coalesce.in_flight) == (0, 0, 0)
        assert sum(replica.in_flight for replica in statistics.balance.replicas) == 0
        assert len(self.client.timers) == 0
        assert statistics.streams.open == 0
        for call in self.owner.ended:
            # A stream call with a head has an error as well if it was cancelled or timed out within its body.
            assert call.error is not None if call.status is None else self._mode != "whole" or call.error is None

    def assert_recorded(self) -> None:
        """Each attempt was recorded once, with its number; one that was not cut has a status or a kind."""
        attempts = [call.context.attempts for call in self.calls]
        taken = sum(replica.taken for replica in self.client.statistics().balance.replicas)
        if not self.client.policies.coalesce:
            assert sum(map(len, attempts)) == taken
        for each in attempts:
            assert [attempt.number for attempt in each] == list(range(1, len(each) + 1))
            assert all(attempt.status is not None or attempt.kind is not None for attempt in each)
            assert all(attempt.kind is not Kind.INTERNAL for attempt in each)


async def let_happen(policies: Policies, clock: MockClock, events: list[tuple[str, Any, Any]], mode: Mode) -> None:
    async with trio.open_nursery() as nursery:
        world = World(policies, clock, nursery, mode)
        async with world.client:
            for event in events:
                await world.happens(event)
            for call in world.calls:
                world.cancel(call, "the test is over")
            while world.owner.waits:
                nursery.start_soon(world.owner.waits.pop(0).finish)
            await wait_all_tasks_blocked()
            world.assert_over()
            world.assert_recorded()
        nursery.cancel_scope.cancel()


def in_trio(test: Callable[[MockClock], Awaitable[None]]) -> None:
    clock = MockClock()

    async def bounded() -> None:
        with trio.fail_after(1000):
            await test(clock)

    trio.run(bounded, clock=clock)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=150, deadline=None)
@given(beginning=BEGINNINGS, events=st.lists(EVENTS, min_size=10, max_size=60))
def test_a_call_ends_once_and_leaves_nothing_in_any_order_of_events(
    name: str, beginning: list[Any], events: list[Any]
) -> None:
    in_trio(lambda clock: let_happen(POLICIES[name](), clock, [*beginning, *events], "whole"))


USES = st.tuples(st.sampled_from(["receive", "take the rest", "become a stream", "close"]), place, st.just(None))


STREAMED = st.just([*_ASKED, ("stream", 0, "head"), ("become a stream", 0, None)])


@pytest.mark.parametrize("name", ["plain", "retried", "hedged", "all"])
@settings(max_examples=75, deadline=None)
@given(beginning=BEGINNINGS | STREAMED, events=st.lists(EVENTS | EVENTS | USES, min_size=10, max_size=60))
def test_a_pushed_stream_call_ends_once_and_leaves_nothing_in_any_order_of_events(
    name: str, beginning: list[Any], events: list[Any]
) -> None:
    in_trio(lambda clock: let_happen(POLICIES[name](), clock, [*beginning, *events], "stream"))
