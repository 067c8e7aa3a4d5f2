"""What a limit costs a request, and what a key weighs: ``make bench-limits``, a minute.

The admission of a route is measured in this process, as a request cycle awaits it: the values that the key reads, its
evaluation, the decision, the table, and the fields of the response. Half of the keys are new, the others are known.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import trio

from umbel.config.schema.sections import Limit
from umbel.core.networks import Networks
from umbel.gateway.access.route_admission import RouteAdmission
from umbel.gateway.access.route_limits import LimitError, RouteLimits
from umbel.gateway.request.client_origin import origin_of
from umbel.limits.key_table import KeyTable
from umbel.limits.limiter import Limiter
from umbel.supervisor.control.messages import encode
from umbel.supervisor.worker.limit_reports import LimitReports

COST_MAX_US = 10.0
WEIGHT_MAX = 300
KEYS = 1_000_000
ROUNDS, ROUND = 30, 2000
EXPRESSIONS = ("client.ip", "headers.x_tenant || client.ip", "[headers.x_tenant, path.id]")


def request(number: int) -> Any:
    """A stand-in for a request context with what limits read and write."""
    fields = [(b"host", b"gateway.test"), (b"x-tenant", b"tenant-%d" % number)]
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    origin = origin_of(address, fields, Networks(()))
    return SimpleNamespace(origin=origin, serving=None, identity=None, query=b"", limit_fields=())


async def cost(expression: str, shared: str = "worker") -> float:
    """The microseconds of an admission by a limit with this key. ``machine``: with the reports of what was spent."""
    async with trio.open_nursery() as nursery:
        spent: list[bytes] = []
        channel: Any = SimpleNamespace(send=lambda message: spent.append(encode(message)) or True, has_room=True)
        reports = LimitReports(channel)
        await nursery.start(reports.run)
        found = await cost_with(expression, reports.share if shared == "machine" else nullcontext)
        assert bool(spent) == (shared == "machine")
        nursery.cancel_scope.cancel()
    return found


async def cost_with(expression: str, share: Callable[[list[Limiter]], AbstractContextManager[Any]]) -> float:
    """As ``cost``, with this function for the time in which requests are admitted."""
    limiter = Limiter("per_key", Limit.model_validate({"key": expression, "rate": "100/m", "burst": 20}))
    serving = SimpleNamespace(runtime=SimpleNamespace(limiters={"per_key": limiter}))
    context: Any = None
    admission = RouteAdmission(None, RouteLimits(context, [limiter]), None, None)
    rng, path = random.Random(22), {"id": 7}
    rounds = []
    for begin in range(ROUNDS):
        numbers = (begin * ROUND + place if rng.random() < 0.5 else rng.randrange(1000) for place in range(ROUND))
        requests = [request(number) for number in numbers]
        for each in requests:
            each.serving = serving
            each.origin.fields.end_to_end  # noqa: B018 - read once here, as any route reads it
        before = time.perf_counter()
        with share([limiter]):  # At the end, all is reported: what a busy worker does in half of the default ``sync``.
            for each in requests:
                try:
                    await admission.admit(each, path)
                except LimitError:
                    continue
        rounds.append((time.perf_counter() - before) / ROUND * 1e6)
    return statistics.median(rounds)


def weight() -> float:
    """The bytes of a key in a full table."""
    tracemalloc.start()
    table = KeyTable(KEYS, 0.75)
    for number in range(KEYS):
        table.set(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", number % 12 + 0.5, 0.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == KEYS
    return size / KEYS


def longest_set() -> float:
    """The longest time, in milliseconds, of adding one key to a full table whose keys are all idle."""
    table = KeyTable(KEYS, 0.75)
    for number in range(KEYS):
        table.set(number.to_bytes(4), number % 12 + 0.5, 0.0)
    longest = 0.0
    for number in range(50_000):
        before = time.perf_counter()
        table.set(f"new-{number}", 1000.0 + number % 12, 999.0)
        longest = max(longest, time.perf_counter() - before)
    return longest * 1e3


def main() -> bool:
    print("| key | µs per request |")
    print("|---|---:|")
    costs = {expression: trio.run(cost, expression) for expression in EXPRESSIONS}
    for expression, each in costs.items():
        print(f"| `{expression}` | {each:.1f} |")
    costs["shared"] = trio.run(cost, EXPRESSIONS[0], "machine")
    print(f"| `{EXPRESSIONS[0]}`, shared by the workers, with the reports | {costs['shared']:.1f} |")
    size = weight()
    print(f"\n{KEYS:,} keys: {size:.0f} bytes each; the longest step of a full table {longest_set():.2f} ms")
    kept = max(costs.values()) <= COST_MAX_US and size <= WEIGHT_MAX
    print(f"bars: at most {COST_MAX_US:g} µs and {WEIGHT_MAX} bytes: {'kept' if kept else 'MISSED'}")
    return kept


if __name__ == "__main__":
    sys.exit(not main())
