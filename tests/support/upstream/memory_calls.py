"""Upstreams in memory on the virtual clock, and calls that a test starts in a given order.

async with coalescing(answering(after=1.0)) as upstream:
    first, second = upstream.start(), upstream.start()
    await first.end()
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio
import trio.testing

from tests.support.logs.records import Records
from tests.support.upstream.calls import fields
from tests.support.upstream.memory_dial import MemoryDial, ServerEnd
from umbel.core.call import Call, CallContext, Mode, PreparedRequest
from umbel.core.http.header_field import Field
from umbel.core.model import Attempt, RequestFacts, Trace
from umbel.upstream import Client, CoalesceStatistics, Transport


class Asked(NamedTuple):
    """A request that the upstream received."""

    method: str
    target: bytes
    fields: list[tuple[bytes, bytes]]
    """The header fields in order, with names in lower case."""
    body: bytes

    def value(self, name: bytes) -> bytes | None:
        """The value of the first field of this name; None without one."""
        return next((value for each, value in self.fields if each == name), None)


Act = Callable[[Asked], Awaitable[bytes]]
"""The handler of a request: its result is sent as the response; an empty result closes the connection."""


class Upstream:
    """An upstream that runs ``act`` for each request, and keeps the requests."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self.requests: list[Asked] = []
        self.in_flight = 0
        """The number of requests whose handler runs; a client that closes its connection cancels the handler."""

    async def serve(self, end: ServerEnd) -> None:
        """Serve one connection."""
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                if not (data := await end.receive_some()):
                    return
                received += data
            head, _, received = received.partition(b"\r\n\r\n")
            line, *rest = head.split(b"\r\n")
            pairs = [(name.lower(), value) for name, _, value in (each.partition(b": ") for each in rest)]
            length = int(dict(pairs).get(b"content-length", b"0"))
            while len(received) < length:
                received += await end.receive_some()
            method, target, _ = line.split(b" ")
            asked = Asked(method.decode(), target, pairs, received[:length])
            received = received[length:]
            self.requests.append(asked)
            answer = await self._answer(asked, end)
            if not answer:
                return
            await end.send_all(answer)

    async def _answer(self, asked: Asked, end: ServerEnd) -> bytes:
        answer = b""
        self.in_flight += 1
        try:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    assert not await end.receive_some(), "a second request before the response to the first"
                    nursery.cancel_scope.cancel(reason="the client has closed")

                nursery.start_soon(watch)
                answer = await self._act(asked)
                nursery.cancel_scope.cancel(reason="answered")
        finally:
            self.in_flight -= 1
        return answer


def answer(status: int = 200, content: bytes = b"{}", headers: Mapping[str, str] | list[tuple[str, str]] = ()) -> bytes:
    """Encode a response."""
    pairs = [*dict(headers).items()] if isinstance(headers, Mapping) else [*headers]
    lines = "".join(f"{name}: {value}\r\n" for name, value in [*pairs, ("Content-Length", str(len(content)))])
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + content


def answering(*, after: float = 1.0, **response: Any) -> Act:
    """Make a handler that answers after ``after`` seconds; ``response`` are the arguments of ``answer``."""

    async def act(asked: Asked) -> bytes:
        await trio.sleep(after)
        whole = answer(**response)
        return whole if asked.method != "HEAD" else whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    return act


async def hang(asked: Asked) -> bytes:
    """A handler that never answers."""
    await trio.sleep_forever()
    raise AssertionError


def request_of(name: str = "call", budget: float = math.inf) -> RequestFacts:
    """Make the facts of an inbound request that begins now; ``budget``: seconds until its deadline."""
    now = trio.current_time()
    return RequestFacts(f"r-{name}", Trace("ab" * 16, "cd" * 8, "01", "vendor=1"), "GET", "/r", "/r", now, now + budget)


class Made:
    """A started call and its owner. The owner asserts that the call notifies it as ``core.call`` says."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.over = trio.Event()
        self._cancelled = False
        self.call: Call
        self.context: CallContext
        self.result: Call | None = None
        """The call with its result; None before its end."""

    @property
    def attempts(self) -> list[Attempt]:
        return self.context.attempts

    @property
    def error(self) -> Exception | None:
        assert self.result is not None
        return self.result.error

    def call_ended(self, call: Call) -> None:
        assert self.result is None
        assert not self._cancelled
        assert call.context is self.context
        self.result = call
        self.over.set()

    def call_waits(self, call: Call) -> None:
        assert self.result is None
        assert not self._cancelled
        self.nursery.start_soon(call.finish)

    def cancel(self, reason: str) -> None:
        """Cancel the call."""
        self._cancelled = True
        self.over.set()
        self.call.cancel(reason)

    async def end(self) -> Call:
        """Wait for the end of the call and return it. The call must not be cancelled."""
        await self.over.wait()
        assert self.result is not None
        return self.result

    async def leave_at(self, deadline: float, reason: str) -> None:
        """Cancel the call at ``deadline``, unless it has ended before."""
        with trio.move_on_at(deadline):
            await self.over.wait()
        if not self.over.is_set():
            self.cancel(reason)


class MemoryCalls:
    """A client over memory streams, with which a test starts calls."""

    def __init__(self, transport: Transport, dial: MemoryDial, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.transport = transport
        self.dial = dial

    @property
    def client(self) -> Client:
        return self.transport.client

    def start(
        self,
        target: bytes = b"/x",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        gateway: tuple[tuple[Field, ...], ...] = (),
        content: bytes | None = None,
        body: AsyncIterable[bytes] | None = None,
        request: RequestFacts | None = None,
        budget: float = math.inf,
        limit: float | None = None,
        mode: Mode = "whole",
        expects_continue: bool = False,
        **context: Any,
    ) -> Made:
        """Start a call and send its request.

        Args:
            request: the inbound request; None: one that begins now and has ``budget`` seconds. Its deadline cancels
                the call.
            limit: the call's own limit in seconds.
            context: further members of ``CallContext``.
        """
        now, made = trio.current_time(), Made(self.nursery)
        request = request or request_of(budget=budget)
        deadline = request.deadline if limit is None else min(request.deadline, now + limit)
        made.context = CallContext(
            made, "call", "upstream", request, deadline, Records(), limit if deadline < request.deadline else None,
            **{"takes_attempts": True, **context},
        )  # fmt: skip
        prepared = PreparedRequest(
            method, target, fields(headers or {}), content, gateway, body, expects_continue=expects_continue
        )
        made.call = self.client.new_call(prepared, made.context, mode)
        if request.deadline < math.inf:
            self.nursery.start_soon(made.leave_at, request.deadline, "the request's deadline")
        made.call.start(now)
        made.call.send()
        return made

    async def ends(self, *made: Made) -> list[Call]:
        """Wait for the ends of calls and return them."""
        return [await each.end() for each in made]

    def assert_nothing_left(self) -> None:
        """Assert that no call or shared call is in flight, and that no slot, replica, connection or timer is in use."""
        statistics = self.client.statistics()
        assert (statistics.coalesce.in_flight, statistics.coalesce.waiting) == (0, 0)
        assert (statistics.bulkhead.in_flight, statistics.bulkhead.waiting, statistics.streams.open) == (0, 0, 0)
        assert (self.client.bulkhead.requests, self.client.bulkhead.joined) == ({}, {})
        assert (statistics.budget.active, statistics.budget.extra, statistics.hedge.pending) == (0, 0, 0)
        assert {replica.in_flight for replica in statistics.balance.replicas} <= {0}
        assert (statistics.pool.active, statistics.pool.connecting) == (0, 0)
        assert self.dial.open == statistics.pool.idle
        assert len(self.client.timers) == 0


@asynccontextmanager
async def memory_calls(
    serve: Callable[[ServerEnd], Awaitable[object]],
    *urls: str,
    delay: float = 0.0,
    lockstep: bool = False,
    pushing: bool = False,
    cut: bool = False,
    **options: Any,
) -> AsyncIterator[MemoryCalls]:
    """Open a client over memory streams. After the block nothing of a call may be left.

    Args:
        serve: serves the upstream's end of each connection.
        urls: the URLs of the replicas.
        delay, lockstep, pushing: those of ``MemoryDial``.
        cut: the block ends while calls are in flight; closing the client ends them.
        options: those of ``Transport``.
    """
    async with trio.open_nursery() as nursery:
        dial = MemoryDial(nursery, serve, delay=delay, lockstep=lockstep, pushing=pushing)
        async with Transport(urls or ("http://a",), **{"dial": dial, **options}) as transport:
            calls = MemoryCalls(transport, dial, nursery)
            yield calls
            if not cut:
                await trio.testing.wait_all_tasks_blocked()
                calls.assert_nothing_left()
        await trio.testing.wait_all_tasks_blocked()
        calls.assert_nothing_left()
        nursery.cancel_scope.cancel(reason="the test is over")


class Coalescing(MemoryCalls):
    """A client that coalesces calls, over an ``Upstream``."""

    def __init__(self, calls: MemoryCalls, upstream: Upstream) -> None:
        super().__init__(calls.transport, calls.dial, calls.nursery)
        self._upstream = upstream

    @property
    def requests(self) -> list[Asked]:
        """The requests that the upstream has received."""
        return self._upstream.requests

    @property
    def in_flight(self) -> int:
        """The number of requests in flight at the upstream."""
        return self._upstream.in_flight

    @property
    def statistics(self) -> CoalesceStatistics:
        return self.client.statistics().coalesce


@asynccontextmanager
async def coalescing(act: Act, *urls: str, coalesce: bool = True, **options: Any) -> AsyncIterator[Coalescing]:
    """Open a client that coalesces calls, over an upstream with the handler ``act``.

    ``options`` are those of ``memory_calls``.
    """
    upstream = Upstream(act)
    async with memory_calls(upstream.serve, *urls, coalesce=coalesce, **options) as calls:
        yield Coalescing(calls, upstream)
