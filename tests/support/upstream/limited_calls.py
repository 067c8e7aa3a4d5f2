"""An upstream on the virtual clock whose calls spend of limits, and the times at which attempts reach it."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing
from msgspec.structs import replace

from tests.support.upstream.calls import request_facts
from tests.support.upstream.scripted_upstream import Scripted
from umbel.config.schema.sections import Limit
from umbel.core.model import LimitValues, RequestFacts
from umbel.limits.limiter import Limiter
from umbel.upstream.limit_queue import CallLimits, LimitQueue


def limiter(name: str = "l", **keys: Any) -> Limiter:
    """A limit of one unit per second for each ``client.ip``, and one at once."""
    return Limiter(name, Limit.model_validate({"key": "client.ip", "rate": "1/s", "burst": 1, **keys}))


def limit(upstream: Scripted, *limiters: Limiter) -> list[LimitQueue]:
    """Let all calls of ``upstream`` spend of these limits. Return their queues."""
    queues = [LimitQueue(each) for each in limiters]
    upstream.client.limits = CallLimits(queues, upstream.client.timers)
    return queues


def asked_by(ip: str = "192.0.2.1", budget: float = 1e6, **values: Any) -> RequestFacts:
    """An inbound request of a client; ``budget``: seconds until its deadline."""
    return replace(request_facts(budget), limit_values=LimitValues({"client": {"ip": ip}, **values}))


def offsets(upstream: Scripted, start: float) -> list[float]:
    """The times, in seconds since ``start``, at which attempts reached the upstream."""
    return [round(each - start, 2) for each in upstream.script.starts]


def targets(upstream: Scripted) -> str:
    """The targets of the requests in the order in which they came, each one letter."""
    return "".join(made.request.split()[1].decode().strip("/") for made in upstream.script.made)


async def start_all(nursery: trio.Nursery, upstream: Scripted, letters: str, **options: Any) -> list[Any]:
    """Start a call for each letter, in this order. Return the list that gets letter, time and outcome of each."""
    ended: list[Any] = []
    start = trio.current_time()

    async def make(letter: str) -> None:
        outcome = await upstream.outcome(target=b"/" + letter.encode(), **options)
        ended.append((letter, round(trio.current_time() - start, 2), outcome))

    for letter in letters:
        nursery.start_soon(make, letter)
        await trio.testing.wait_all_tasks_blocked()
    return ended
