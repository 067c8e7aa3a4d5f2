"""What each layer of an upstream's stack costs a call, and what a call weighs: ``make bench-layers``.

No sockets: a scripted transport answers at once, nothing is triggered, and every figure is that of a layer less the
transport beneath it. The variants take turns, and the best of many short turns counts: whatever else the machine does
can only add to it.
"""

from __future__ import annotations

import argparse
import gc
import math
import socket
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import trio
import trio.testing

from umbel.events import Event
from umbel.model import FACTS, CallFacts, RequestFacts, Trace
from umbel.net.epoll import new_reader
from umbel.net.stream import PlainStream, Stream
from umbel.upstream import Attempt, Balance, Body, Breaker, Bulkhead, Coalesce, Hedge, Pool, Retry
from umbel.upstream.origin import Origin

REPLICAS = ("http://127.0.0.1:1", "http://127.0.0.1:2")
CONTENT = b'{"id": 42}'
WAITING = 2000
IN_USE = 500
BARS = {"four together": 25.0, "hedge": 40.0, "coalesce": 40.0}

Call = Callable[[], Awaitable[object]]


class Scripted(httpx.AsyncBaseTransport):
    """Answers at once, always the same. Closed responses may be shared."""

    def __init__(self) -> None:
        self._response = httpx.Response(200, content=CONTENT)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self._response


class Silent(httpx.AsyncBaseTransport):
    """Never answers."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await trio.sleep_forever()


class Forgetful:
    """A recorder that keeps nothing."""

    def record(self, event: Event) -> None:
        pass


def request() -> httpx.Request:
    """A call as the composition makes it."""
    now = trio.current_time()
    of_request = RequestFacts("id", Trace("1" * 32), "GET", "/", "/", now, math.inf)
    facts = CallFacts("user", "users", of_request, math.inf, Forgetful())
    fields = {"accept": "application/json", "x-request-id": "id", "via": "1.1 umbel"}
    return httpx.Request("GET", "http://users/", headers=fields, extensions={"target": b"/users/42", FACTS: facts})


def four(bottom: httpx.AsyncBaseTransport) -> httpx.AsyncBaseTransport:
    return Breaker(Bulkhead(Retry(Balance(bottom, REPLICAS))))


LAYERS: dict[str, Callable[[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport]] = {
    "breaker": Breaker,
    "bulkhead": Bulkhead,
    "retry": Retry,
    "balance": lambda bottom: Balance(bottom, REPLICAS),
    "four together": four,
    "hedge": Hedge,
    "coalesce": Coalesce,
    "attempt": Attempt,
    "body": Body,
    "all": lambda bottom: Coalesce(Breaker(Bulkhead(Retry(Hedge(Balance(Attempt(Body(bottom)), REPLICAS)))))),
}


async def costs(turns: int, calls: int) -> dict[str, float]:
    """Microseconds that each layer adds to a call: the best turn of each, less that of the transport alone."""
    best: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        transports: dict[str, httpx.AsyncBaseTransport] = {"": Scripted()}
        for name, make in LAYERS.items():
            transports[name] = await stack.enter_async_context(make(Scripted()))
        asked = request()
        facts: CallFacts = asked.extensions[FACTS]
        for _ in range(turns):
            for name, transport in transports.items():
                handle = transport.handle_async_request
                began = time.perf_counter()
                for _ in range(calls):
                    await handle(asked)
                took = (time.perf_counter() - began) / calls * 1e6
                best[name] = min(took, best.get(name, math.inf))
                facts.attempts.clear()
                await trio.lowlevel.checkpoint()
    bare = best.pop("")
    return {name: took - bare for name, took in best.items()}


async def weight(call: Call, count: int) -> float:
    """KiB that one more call under way takes, its task included."""
    async with trio.open_nursery() as nursery:
        for _ in range(20):  # What is made once for all.
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        tracemalloc.start()
        for _ in range(count):
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        size = tracemalloc.get_traced_memory()[0] / count / 1024
        tracemalloc.stop()
        nursery.cancel_scope.cancel(reason="weighed")
    return size


async def waiting() -> float:
    """Of a call in the bulkhead's queue, its request included."""
    async with Bulkhead(Silent(), max_concurrency=1, max_queue=WAITING + 100) as bulkhead:
        return await weight(lambda: bulkhead.handle_async_request(request()), WAITING)


async def in_use() -> float:
    """Of a call with a connection that awaits its response, above the kernel."""
    peers: list[socket.socket] = []
    reader = new_reader()

    async def dial(origin: Origin, timeout: float | None) -> Stream:
        ours, theirs = socket.socketpair()
        peers.append(theirs)
        return PlainStream(ours, reader)

    async with Pool(dial=dial, max_connections=None) as pool:
        stack = Balance(Attempt(Body(pool)), REPLICAS)
        size = await weight(lambda: stack.handle_async_request(request()), IN_USE)
    for peer in peers:
        peer.close()
    return size


async def main(quick: bool) -> None:
    print("| layer, untriggered | µs a call | bar |\n|---|---:|---:|")
    for name, took in (await costs(10 if quick else 100, 100 if quick else 200)).items():
        bar = f"≤ {BARS[name]:g}" if name in BARS else ""
        print(f"| {name} | {took:.1f} | {bar} |")
    print("\n| memory | KiB | bar |\n|---|---:|---:|")
    print(f"| a call waiting in the queue | {await waiting():.1f} | ≤ 12 |")
    print(f"| a connection in use, its call included | {await in_use():.1f} | ≤ 40 |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few short turns")
    trio.run(main, parser.parse_args().quick)
