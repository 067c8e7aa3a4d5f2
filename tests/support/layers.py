"""What a layer stands on in a test without sockets: a transport that is a function, and requests of calls."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import trio

from tests.support.records import Records
from umbel.model import FACTS, CallFacts, RequestFacts, Trace

Act = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Bottom(httpx.AsyncBaseTransport):
    """Does what ``act`` says; keeps the requests and counts what is in flight."""

    def __init__(self, act: Act) -> None:
        self.act = act
        self.requests: list[httpx.Request] = []
        self.in_flight = 0
        self.entered = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.in_flight += 1
        try:
            return await self.act(request)
        finally:
            self.in_flight -= 1

    async def __aenter__(self) -> Bottom:
        self.entered += 1
        return self

    async def __aexit__(self, *error: object) -> None:
        self.entered -= 1


def complete(status: int = 200, content: bytes = b"ok") -> httpx.Response:
    """A response that is read and closed, as the body layer gives it."""
    response = httpx.Response(status, stream=httpx.ByteStream(content))
    response.read()
    return response


def answering(status: int = 200, after: float = 0.0) -> Act:
    """Answer with ``status`` after a while."""

    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(after)
        return complete(status)

    return act


def raising(make: Callable[[], Exception], after: float = 0.0) -> Act:
    """Fail after a while."""

    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(after)
        raise make()

    return act


async def hang(request: httpx.Request) -> httpx.Response:
    """Never answer."""
    await trio.sleep_forever()
    raise AssertionError


class Pieces(httpx.AsyncByteStream):
    """A body in three pieces, or broken by ``error`` after the first."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            yield b"piece"
            if self._error is not None:
                raise self._error

    async def aclose(self) -> None:
        self.closed = True


def call_facts(budget: float = math.inf, route_budget: float | None = None) -> CallFacts:
    """Facts of a call that begins now, of a request that does too."""
    now = trio.current_time()
    route = budget if route_budget is None else route_budget
    request = RequestFacts("id", Trace("ab" * 16), "GET", "/", "/", now, now + route)
    return CallFacts("call", "upstream", request, now + budget, Records())


def asked(facts: CallFacts | None = None, url: str = "http://upstream", method: str = "GET") -> httpx.Request:
    """A request for ``/``, of that call or of none."""
    return httpx.Request(method, url, extensions={"target": b"/"} if facts is None else {"target": b"/", FACTS: facts})
