"""Leaks: what a gateway still holds when its test has ended, although no request needs it any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import trio

from ..upstream.client import Client, ClientStatistics

if TYPE_CHECKING:
    from ..gateway.app import Umbel
    from ..server.state import ServerState


class LeakError(AssertionError):
    """The gateway holds something at the end of a test. ``left`` names each thing in one line."""

    def __init__(self, left: Iterable[str]) -> None:
        self.left = tuple(left)
        lines = "".join(f"\n- {each}" for each in self.left)
        super().__init__(
            f"at the end of the test the gateway still has:{lines}\n"
            "(leaks=False of umbel.testing.gateway switches this check off)"
        )


def requests_left(app: Umbel, server: ServerState) -> Iterator[str]:
    """Describe the requests that are not over."""
    counts, serves = app.statistics(), server.statistics()
    if in_flight := max(counts.requests_in_flight, serves.requests_in_flight):
        yield f"{in_flight} requests in flight; was a response not read to its end and not closed?"
    if serves.uploads:
        yield f"{serves.uploads} requests whose body has not come"
    if serves.streams:
        yield f"{serves.streams} streams that are open"


def calls_left(app: Umbel) -> Iterator[str]:
    """Describe what the clients of the upstreams hold for calls: calls, places, attempts, connections."""
    for name, caller in app.runtime.callers.items():
        if isinstance(caller, Client):
            held = _held(caller.statistics())
            yield from (f"upstream {name!r}: {count} {what}" for what, count in held if count)


def _held(client: ClientStatistics) -> Iterator[tuple[str, int]]:
    yield "calls that hold a place", client.bulkhead.in_flight
    yield "calls that wait for a place", client.bulkhead.waiting
    yield "calls that share a call", client.coalesce.waiting
    yield "shared calls", client.coalesce.in_flight
    yield "attempts in flight", sum(replica.in_flight for replica in client.balance.replicas)
    yield "retries or hedges of the budget", client.budget.extra
    yield "hedges that are due", client.hedge.pending
    yield "streams", client.streams.open
    yield "connections that are being made", client.pool.connecting
    yield "connections that are leased", client.pool.active


def copies_in_flight(app: Umbel) -> int:
    """The number of copies of requests (``mirror``) that are in flight; they may outlast their request."""
    return sum(each.in_flight for each in app.runtime.mirrors.statistics().values())


def tasks_of(nurseries: Iterable[trio.Nursery]) -> Iterator[trio.lowlevel.Task]:
    """All tasks in nurseries, and in the nurseries of these tasks."""
    waiting = list(nurseries)
    while waiting:
        for task in waiting.pop().child_tasks:
            yield task
            waiting += task.child_nurseries


def tasks_left(tasks: Iterable[trio.lowlevel.Task]) -> Iterator[str]:
    """Describe tasks, each by its name."""
    return (f"the task {task.name}" for task in tasks)
