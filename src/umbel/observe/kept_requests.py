"""Kept requests: the timelines of some requests of each route, by how long they took or how they ended.

Theory
------
*Buckets.* A request belongs to one bucket of its route: ``error`` (a status of 500 and above, or a response that broke
off), ``partial``, or else the greatest of 0, 50, 100, 200 and 500 ms, 1 s and 10 s that it took. So the rare slow and
failed requests are not replaced by the many quick ones.

*Choice.* A bucket holds the latest ``BUCKET_REQUESTS_MAX`` requests that were chosen. Every request is chosen until it
is full; after that at most one in ``EVERY_S`` seconds, because a timeline costs some 100 µs. ``seen`` counts all
requests of each bucket, so that what is not kept is known.

*Bounds.* ``REQUESTS_MAX`` requests and ``BYTES_MAX`` bytes in a process. Beyond them the oldest request is dropped from
the first bucket, in the order of ``BUCKETS``, that has any in any route: quick requests first, errors last.
``dropped`` counts these. A timeline is kept as JSON, so that its size is known and the garbage collector need not
visit it.

*Threads.* Requests are added in the trio thread. ``listing`` and ``find`` only read, and may be called from any thread,
also while the event loop is blocked.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

import msgspec

from .timeline import RequestOutcome, Timeline

BUCKETS = ("0", "50 ms", "100 ms", "200 ms", "500 ms", "1 s", "10 s", "partial", "error")
"""The names of the buckets."""
PARTIAL, ERROR = 7, 8
"""The indexes of the last two."""
BUCKET_REQUESTS_MAX = 10
"""The bound on the requests of a bucket of one route."""
REQUESTS_MAX = 2000
"""The bound on the requests of a process."""
BYTES_MAX = 8 * 2**20
"""The bound on the memory of the requests of a process."""
ENTRY_BYTES = 1000
"""What a kept request takes beside its JSON."""
EVERY_S = 1.0
"""The time from one request to the next that is kept in a full bucket."""

LATEST_MAX = 500
"""The bound on the requests of a list that is sent again and again."""
LATEST_EVERY_S = 3.0
"""The least seconds between two such lists."""


class Summary(msgspec.Struct, frozen=True):
    """A kept request, as a list shows it."""

    id: str
    """The process and a number; the name of the timeline."""
    received: float
    """Seconds since the epoch."""
    duration_ms: float
    route: str
    bucket: str
    """One of ``BUCKETS``."""
    outcome: RequestOutcome
    status: int
    method: str
    path: str
    reason: str
    trace_id: str


class Listing(msgspec.Struct, frozen=True):
    """The kept requests of a process."""

    requests: tuple[Summary, ...] = ()
    """The latest first."""
    seen: Mapping[str, Mapping[str, int]] = {}
    """By route and bucket: how many requests there were, kept or not."""
    dropped: int = 0
    """How many were dropped, because the kept ones took too much memory."""


class _Entry:
    __slots__ = ("buckets", "encoded", "place", "summary")

    def __init__(self, summary: Summary, encoded: bytes, buckets: RouteBuckets, place: int) -> None:
        self.summary = summary
        self.encoded = encoded
        self.buckets = buckets
        self.place = place

    @property
    def size(self) -> int:
        return len(self.encoded) + ENTRY_BYTES


class RouteBuckets:
    """The buckets of one route. Each request writes to ``seen`` and reads ``keep_from``, by the index of its bucket."""

    __slots__ = ("keep_from", "numbers", "seen")

    def __init__(self) -> None:
        self.seen = [0] * len(BUCKETS)
        """The number of requests."""
        self.keep_from = [float("-inf")] * len(BUCKETS)
        """The time (``trio.current_time()``) from which the next request is kept."""
        self.numbers: tuple[deque[int], ...] = tuple([deque() for _ in BUCKETS])
        """The numbers of the kept requests, the oldest first."""


class KeptRequests:
    """The kept requests of this process; see the module."""

    def __init__(self, requests_max: int = REQUESTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._routes: dict[str, RouteBuckets] = {}
        self._entries: dict[int, _Entry] = {}
        self._by_place: tuple[OrderedDict[int, None], ...] = tuple([OrderedDict() for _ in BUCKETS])
        """The numbers of the requests in each bucket, of all routes, the oldest first."""
        self._latest = 0
        self._bytes = 0
        self._dropped = 0

    def route(self, name: str) -> RouteBuckets:
        """The buckets of a route, which are made if there are none. The caller bounds the number of names."""
        buckets = self._routes.get(name)
        if buckets is None:
            buckets = self._routes[name] = RouteBuckets()
        return buckets

    def add(self, buckets: RouteBuckets, place: int, timeline: Timeline, now: float) -> None:
        """Keep a request in the bucket ``place``, in place of its oldest one if it is full.

        ``now``: ``trio.current_time()``.
        """
        self._latest += 1
        number, numbers = self._latest, buckets.numbers[place]
        summary = Summary(
            f"{os.getpid()}-{number}",
            timeline.received,
            timeline.duration_ms,
            timeline.route,
            BUCKETS[place],
            timeline.outcome,
            timeline.status,
            timeline.method,
            timeline.path,
            timeline.reason,
            timeline.trace_id,
        )
        if len(numbers) >= BUCKET_REQUESTS_MAX:
            self._remove(numbers[0])
        entry = self._entries[number] = _Entry(summary, msgspec.json.encode(timeline), buckets, place)
        numbers.append(number)
        self._by_place[place][number] = None
        self._bytes += entry.size
        if len(numbers) >= BUCKET_REQUESTS_MAX:
            buckets.keep_from[place] = now + EVERY_S
        while self._bytes > self._bytes_max or len(self._entries) > self._requests_max:
            self._remove(next(iter(next(filter(None, self._by_place)))))
            self._dropped += 1

    def _remove(self, number: int) -> None:
        entry = self._entries.pop(number)
        entry.buckets.numbers[entry.place].remove(number)
        del self._by_place[entry.place][number]
        self._bytes -= entry.size

    def listing(self) -> Listing:
        """The kept requests, and how many there were."""
        entries = list(self._entries.values())  # In one step: another thread may add a request.
        seen = {
            name: {BUCKETS[place]: count for place, count in enumerate(buckets.seen) if count}
            for name, buckets in list(self._routes.items())
        }
        return Listing(tuple([each.summary for each in reversed(entries)]), seen, self._dropped)

    def find(self, request: str) -> bytes | None:
        """The JSON of the timeline of a kept request, by the id in its summary; None if it is not kept (any more)."""
        process, _, number = request.partition("-")
        if process != str(os.getpid()) or not number.isascii() or not number.isdigit() or len(number) > 15:
            return None
        entry = self._entries.get(int(number))
        return None if entry is None else entry.encoded


def as_answer(listings: Mapping[str, Listing | None]) -> dict[str, Any]:
    """The kept requests of several processes as plain data, for the path ``/slow``.

    Args:
        listings: those of each process, by its name; None: it has not answered.

    Returns:
        ``requests``: the fields of ``Summary`` and ``process``, the latest request first. ``buckets``: the names of the
        buckets in their order. ``seen``: by route and bucket, the sum of all processes. ``dropped``: the sum.
        ``silent``: the names of the processes that have not answered.
    """
    requests: list[dict[str, Any]] = []
    seen: dict[str, dict[str, int]] = {}
    for process, listing in listings.items():
        if listing is None:
            continue
        requests += [{"process": process, **msgspec.structs.asdict(each)} for each in listing.requests]
        for route, counts in listing.seen.items():
            into = seen.setdefault(route, {})
            for bucket, count in counts.items():
                into[bucket] = into.get(bucket, 0) + count
    requests.sort(key=lambda each: each["received"] + each["duration_ms"] / 1000, reverse=True)
    return {
        "requests": requests,
        "buckets": list(BUCKETS),
        "seen": seen,
        "dropped": sum(listing.dropped for listing in listings.values() if listing is not None),
        "silent": [process for process, listing in listings.items() if listing is None],
    }


def latest(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer of ``as_answer`` with its latest ``LATEST_MAX`` requests; ``left_out`` says how many it has lost."""
    requests = answer["requests"]
    return {**answer, "requests": requests[:LATEST_MAX], "left_out": max(0, len(requests) - LATEST_MAX)}


def as_request(process: str, request: str, timeline: bytes) -> dict[str, Any]:
    """One kept request as plain data, for the path ``/slow/ID``: ``id``, ``process`` and ``timeline``."""
    return {"id": request, "process": process, "timeline": msgspec.Raw(timeline)}
