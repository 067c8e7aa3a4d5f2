"""The cost of each policy of an upstream for a call, and the memory of a call: ``make bench-policies``.

No sockets: a scripted stream responds at once, and no policy is triggered. The figure of a policy is the time of a call
with it minus that of a call without. The variants take turns, and the best of many short turns counts, because other
work of the machine can only add to it.
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
from typing import Any

import httpx
import trio
import trio.testing

from umbel.core.call import CallContext, PreparedRequest, SingleCallOwner
from umbel.core.errors import UmbelError
from umbel.core.events import NULL
from umbel.core.model import RequestFacts, Trace
from umbel.net.epoll import new_reader
from umbel.net.stream import Listener, PlainStream, Stream
from umbel.upstream import BreakerRules, EjectionRules, Hedge, Retry, Transport
from umbel.upstream.replicas.origin import Origin

REPLICAS = ("http://127.0.0.1:1", "http://127.0.0.1:2")
ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"id": 42}'
WAITING = 2000
IN_USE = 500
FOUR = "retry, breaker, two replicas, ejection"
BARS = {FOUR: 25.0, "hedge": 40.0, "coalesce": 40.0}

Action = Callable[[], Awaitable[object]]


class AnsweringStream(PlainStream):
    """A stream without a socket that responds to each request at once, always the same."""

    def __init__(self) -> None:
        self.unsent = b""
        self.ended_at = None

    def is_quiet(self) -> bool:
        return True

    def received_ago(self) -> None:
        """No kernel knows."""

    def send_and_listen(self, data: bytes, listener: Listener) -> None:
        self.listen(listener)

    def listen(self, listener: Listener) -> None:
        listener.on_data(ANSWER)

    def close_now(self) -> None:
        pass


async def answering(origin: Origin, timeout: float | None) -> Stream:
    return AnsweringStream()


PREPARED = PreparedRequest(
    "GET",
    b"/users/42",
    ((b"accept", b"accept", b"application/json"),),
    gateway=(((b"via", b"via", b"1.1 umbel"),), ((b"x-request-id", b"x-request-id", b"id"),)),
)


def asked(transport: Transport, limit: float | None = None) -> Action:
    """A call as a composition makes it."""
    of_request = RequestFacts("id", Trace("1" * 32), "GET", "/", "/", trio.current_time(), math.inf)
    client = transport.client

    async def call() -> None:
        owner = SingleCallOwner()
        deadline = math.inf if limit is None else trio.current_time() + limit
        context = CallContext(owner, "user", "users", of_request, deadline, NULL, limit=limit)
        ended = await owner.perform(client.new_call(PREPARED, context))
        if ended.status != 200:
            raise UmbelError("a call was not answered") from ended.error

    return call


POLICIES: dict[str, dict[str, Any]] = {
    "retry": {"retry": Retry()},
    "breaker": {"breaker": BreakerRules()},
    "two replicas": {"urls": REPLICAS},
    "two replicas, ejection": {"urls": REPLICAS, "ejection": EjectionRules()},
    FOUR: {"urls": REPLICAS, "ejection": EjectionRules(), "retry": Retry(), "breaker": BreakerRules()},
    "hedge": {"hedge": Hedge()},
    "hedge after a second": {"hedge": Hedge(1.0)},
    "coalesce": {"coalesce": True},
    'max_concurrency = "auto"': {"max_concurrency": "auto"},
    "a limit of the call's own": {},
}
ALL = "all of them"
POLICIES[ALL] = {key: value for given in POLICIES.values() for key, value in given.items()}
LIMITED = ("a limit of the call's own", ALL)


def transport(**given: Any) -> Transport:
    options: dict[str, Any] = {"urls": REPLICAS[:1], "dial": answering} | given
    return Transport(**options)


async def best_turns(actions: dict[str, Action], turns: int, calls: int) -> dict[str, float]:
    """Return the microseconds of each action: the best of its turns."""
    best: dict[str, float] = {}
    for _ in range(turns):
        for name, action in actions.items():
            began = time.perf_counter()
            for _ in range(calls):
                await action()
            took = (time.perf_counter() - began) / calls * 1e6
            best[name] = min(took, best.get(name, math.inf))
            await trio.lowlevel.checkpoint()
    return best


async def costs(turns: int, calls: int) -> tuple[float, dict[str, float]]:
    """Return the microseconds of a call without policies, and those that each policy adds."""
    async with AsyncExitStack() as stack:
        actions = {"": asked(await stack.enter_async_context(transport()))}
        for name, given in POLICIES.items():
            limit = 5.0 if name in LIMITED else None
            actions[name] = asked(await stack.enter_async_context(transport(**given)), limit)
        best = await best_turns(actions, turns, calls)
    bare = best.pop("")
    return bare, {name: took - bare for name, took in best.items()}


async def ways(turns: int, calls: int) -> dict[str, float]:
    """Return the microseconds of a call without policies, for each way to make one."""
    async with AsyncExitStack() as stack:
        direct = await stack.enter_async_context(transport())
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport(), timeout=None))
        fields = {"accept": "*/*"}
        actions: dict[str, Action] = {
            "of a composition": asked(direct),
            "Transport.handle_async_request": lambda: direct.handle_async_request(
                httpx.Request("GET", "http://users/users/42", headers=fields)
            ),
            "httpx.AsyncClient(transport=Transport(…))": lambda: client.get("http://users/users/42"),
        }
        return await best_turns(actions, turns, calls)


async def weight(call: Action, count: int) -> float:
    """Return the KiB of one more call in flight, including its task."""
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


async def silent(count: int, **given: Any) -> float:
    """Return the memory of a call to an upstream that never responds, without that of the kernel."""
    peers: list[socket.socket] = []
    reader = new_reader()

    async def dial(origin: Origin, timeout: float | None) -> Stream:
        ours, theirs = socket.socketpair()
        peers.append(theirs)
        return PlainStream(ours, reader)

    async with transport(dial=dial, **given) as tried:
        size = await weight(asked(tried), count)
    for peer in peers:
        peer.close()
    return size


async def main(quick: bool) -> None:
    turns, calls = (10, 100) if quick else (100, 200)
    bare, added = await costs(turns, calls)
    print(f"| policy, untriggered | µs a call | bar |\n|---|---:|---:|\n| none: the call itself | {bare:.1f} | |")
    for name, took in added.items():
        bar = f"≤ {BARS[name]:g}" if name in BARS else ""
        print(f"| {name} | {took:+.1f} | {bar} |")
    print("\n| a call, by the way it is made | µs |\n|---|---:|")
    for name, took in (await ways(turns, calls)).items():
        print(f"| {name} | {took:.1f} |")
    waiting = await silent(WAITING, max_concurrency=1, max_queue=WAITING + 100)
    in_use = await silent(IN_USE, max_concurrency=IN_USE + 100)
    print("\n| memory | KiB | bar |\n|---|---:|---:|")
    print(f"| a call waiting in the queue | {waiting:.1f} | ≤ 12 |")
    print(f"| a connection in use, its call included | {in_use:.1f} | ≤ 40 |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few short turns")
    trio.run(main, parser.parse_args().quick)
