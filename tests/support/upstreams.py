"""Calls to one upstream, as the composition makes them, and what they must leave behind: nothing."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from tests.support.rawserver import RawServer
from tests.support.records import Records
from umbel.config.schema import Upstream
from umbel.errors import UpstreamError
from umbel.kinds import Kind
from umbel.model import FACTS, CallFacts, RequestFacts, Trace
from umbel.upstream import Stack, build


class Caller:
    """An upstream's stack and the calls made of it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.records = Records()
        self.facts: CallFacts | None = None

    async def call(
        self,
        target: bytes = b"/",
        *,
        method: str = "GET",
        budget: float = math.inf,
        max_body: int | None = None,
        **options,
    ) -> httpx.Response:
        now = trio.current_time()
        request = RequestFacts("id", Trace("1" * 32), "GET", "/", "/", now, now + budget)
        self.facts = CallFacts("call", "upstream", request, now + budget, self.records, max_body)
        extensions = {"target": target, FACTS: self.facts}
        asked = httpx.Request(method, "http://upstream", extensions=extensions, **options)
        return await self.stack.handle_async_request(asked)

    async def fails(self, kind: Kind, proxy_error: str | None = None, **options) -> UpstreamError:
        """Make a call that must fail so, and be recorded so."""
        with pytest.raises(UpstreamError) as caught:
            await self.call(**options)
        error = caught.value
        assert isinstance(error, httpx.TransportError)
        assert error.kind is kind, error.detail
        assert proxy_error is None or error.proxy_error == proxy_error, error.detail
        assert self.facts is not None
        assert self.facts.attempts[-1].kind is kind
        return error

    def assert_nothing_left(self) -> None:
        statistics = self.stack.statistics()
        assert (statistics.bulkhead.in_flight, statistics.bulkhead.waiting) == (0, 0)
        assert (statistics.pool.active, statistics.pool.connecting) == (0, 0)


@asynccontextmanager
async def calling(*urls: str, **config) -> AsyncIterator[Caller]:
    """A stack for ``urls``. At the end nothing of it may be in flight, and its nursery must end by itself."""
    # A real clock: nothing here takes long unless it hangs.
    with trio.fail_after(20):
        async with build("upstream", Upstream(urls=urls, **config)) as stack:
            caller = Caller(stack)
            yield caller
            caller.assert_nothing_left()


def url(server: RawServer, scheme: str = "http", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{int(server)}"
