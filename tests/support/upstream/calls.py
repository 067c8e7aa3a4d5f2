"""Calls to one upstream, made as the composition makes them, and the assertion that they leave nothing behind."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from tests.support.logs.records import Records
from tests.support.upstream.raw_server import RawServer
from umbel.config.schema.sections import Upstream
from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.core.http.header_field import Field
from umbel.core.httpx_calls.httpx_messages import CompleteResponse
from umbel.core.model import RequestFacts, Trace
from umbel.upstream import Client, build


def fields(headers: Mapping[str, str]) -> tuple[Field, ...]:
    """Convert header fields to those of a ``PreparedRequest``."""
    return tuple((name.encode(), name.lower().encode(), value.encode()) for name, value in headers.items())


def request_facts(budget: float = math.inf) -> RequestFacts:
    """Make the facts of an inbound request that begins now; ``budget``: seconds until its deadline."""
    now = trio.current_time()
    return RequestFacts("id", Trace("1" * 32), "GET", "/", "/", now, now + budget)


async def perform(
    client: Client,
    prepared: PreparedRequest,
    *,
    budget: float = math.inf,
    limit: float | None = None,
    recorder: Records | None = None,
    contexts: list[CallContext] | None = None,
    request: RequestFacts | None = None,
    **context: Any,
) -> CompleteResponse:
    """Make one call in this task and return its response.

    Args:
        budget: seconds until the deadline of the inbound request. The deadline does not cancel the call by itself.
        limit: the call's own limit in seconds.
        request: the inbound request; None: one with ``budget``.
        contexts: the call's context is appended to it, for its attempts.
        context: further members of ``CallContext``.

    Raises:
        Exception: the call's error.
    """
    owner, facts = SingleCallOwner(), request or request_facts(budget)
    deadline = facts.deadline if limit is None else min(facts.deadline, facts.started_at + limit)
    made = CallContext(
        owner, "call", "upstream", facts, deadline, recorder or Records(), limit if deadline < facts.deadline else None,
        **{"takes_attempts": True, **context},
    )  # fmt: skip
    if contexts is not None:
        contexts.append(made)
    call = await owner.perform(client.new_call(prepared, made))
    if call.error is not None:
        raise call.error
    assert call.status is not None
    return CompleteResponse(call.status, call.fields, call.content, {}, call.ended_at - facts.started_at)


class Caller:
    """An upstream's client, and the contexts and records of its calls."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.records = Records()
        self.contexts: list[CallContext] = []

    @property
    def attempts(self) -> list[Any]:
        """The attempts of the last call."""
        return self.contexts[-1].attempts

    async def call(
        self,
        target: bytes = b"/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        **options: Any,
    ) -> CompleteResponse:
        """Make a call; ``options`` are those of ``perform``."""
        prepared = PreparedRequest(method, target, fields(headers or {}), content)
        return await perform(self.client, prepared, recorder=self.records, contexts=self.contexts, **options)

    async def fails(self, kind: Kind, proxy_error: str | None = None, **options) -> UpstreamError:
        """Make a call and assert that it fails with this kind, and that its last attempt is recorded with it."""
        with pytest.raises(UpstreamError) as caught:
            await self.call(**options)
        error = caught.value
        assert isinstance(error, httpx.TransportError)
        assert error.kind is kind, error.detail
        assert proxy_error is None or error.proxy_error == proxy_error, error.detail
        assert self.attempts[-1].kind is kind
        return error

    def assert_nothing_left(self) -> None:
        """Assert that no call holds a bulkhead slot, retry budget, a replica, a connection or a timer."""
        self.assert_calls_over()
        pool = self.client.statistics().pool
        assert (pool.active, pool.connecting) == (0, 0)

    def assert_calls_over(self) -> None:
        """Assert the same except for connections, which a task may still be closing."""
        statistics = self.client.statistics()
        assert (statistics.bulkhead.in_flight, statistics.bulkhead.waiting) == (0, 0)
        assert (statistics.budget.active, statistics.budget.extra, statistics.hedge.pending) == (0, 0, 0)
        assert {replica.in_flight for replica in statistics.balance.replicas} <= {0}
        assert len(self.client.timers) == 0


@asynccontextmanager
async def calling(*urls: str, **config) -> AsyncIterator[Caller]:
    """Open a client for ``urls``. After the block no call may be in flight, and the client must close in time."""
    # The clock is real; 20 seconds pass only if something hangs.
    with trio.fail_after(20):
        async with build("upstream", Upstream(urls=urls, **config)) as client:
            caller = Caller(client)
            yield caller
            caller.assert_nothing_left()


def url(server: RawServer, scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{int(server)}"
