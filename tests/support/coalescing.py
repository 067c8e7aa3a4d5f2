"""What tests of the coalescing layer share: an upstream that is a function, and calls that ask at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import trio

from tests.support.records import Records
from umbel.model import FACTS, CallFacts, RequestFacts, Trace
from umbel.upstream.coalesce import Coalesce

Act = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Bottom(httpx.AsyncBaseTransport):
    """Runs a function for each request; knows what it was asked and what is under way."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self.requests: list[httpx.Request] = []
        self.in_flight = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.in_flight += 1
        try:
            return await self._act(request)
        finally:
            self.in_flight -= 1


def answering(
    *, after: float = 1.0, status: int = 200, content: bytes = b"{}", headers: list[tuple[str, str]] | None = None
) -> Act:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(after)
        return httpx.Response(status, headers=headers, content=content)

    return act


async def hang(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError


def call_facts(
    name: str = "orders", *, budget: float = 10.0, route_budget: float = 10.0, max_body: int | None = None
) -> CallFacts:
    now = trio.current_time()
    trace = Trace("ab" * 16, "cd" * 8, "01", "vendor=1")
    request = RequestFacts(f"r-{name}", trace, "GET", "/r", "/r", now, now + route_budget)
    return CallFacts(name, "u", request, now + budget, Records(), max_body)


def asking(
    facts: CallFacts | None = None, target: str = "/x", *, method: str = "GET", **extra: object
) -> httpx.Request:
    extensions: dict[str, object] = {"target": target.encode(), **extra}
    if facts is not None:
        extensions[FACTS] = facts
    return httpx.Request(method, "http://upstream", extensions=extensions)


async def together(coalesce: Coalesce, *requests: httpx.Request) -> list[httpx.Response | Exception]:
    """Each request's answer or failure, all asked in the same moment."""
    results: list[httpx.Response | Exception | None] = [None] * len(requests)

    async def ask(place: int, request: httpx.Request) -> None:
        try:
            results[place] = await coalesce.handle_async_request(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            results[place] = error

    async with trio.open_nursery() as nursery:
        for place, request in enumerate(requests):
            nursery.start_soon(ask, place, request)
    assert None not in results
    return results  # type: ignore[return-value]  # no place is None


async def ask_until(coalesce: Coalesce, request: httpx.Request, scope: trio.CancelScope) -> None:
    with scope:
        await coalesce.handle_async_request(request)
