"""Active health checks: a GET to each replica at intervals, and the set of replicas that are down.

Checks use the upstream's pool. They are not attempts of calls, so breaker, bulkhead and load balancing do not count
them. A check raises nothing: a failed check counts against its replica, and an internal error is recorded.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

import httpx
import trio
from trio_util import periodic

from ...core.events import NULL, LogMessage, Recorder
from ...core.product import PRODUCT
from ...policy.replicas.health import HealthState
from ..aclosing_iter import pieces_of
from ..background_tasks import BackgroundNursery, TaskOwner
from ..errors import TooBig
from ..pool.pool import Pool
from ..pool.request_head import EncodedRequest, encode_request
from ..state_events import StateEvents
from .origin import Replica
from .sources import ReplicaSource, source_of

BACKOFF_SECONDS = 1.0
"""Pause after a check that ended with an internal error; it doubles with each such error in a row."""
BACKOFF_MAX = 60.0
"""Longest such pause in seconds."""
BODY_MAX = 10**6
"""Bytes of the largest response to a check."""


@dataclass(frozen=True, slots=True)
class CheckStatistics:
    """A snapshot of the checks of one replica. The last three count since the replica joined the set."""

    name: str
    """The replica's base URL as configured; see ``Replica.name``."""
    up: bool
    checks: int
    """Checks that ended, passed or failed."""
    failures: int
    """Checks that failed."""
    crashes: int
    """Checks that ended with an internal error, which does not count against the replica."""


@dataclass(frozen=True, slots=True)
class HealthStatistics:
    """A snapshot of the health checks of an upstream."""

    replicas: tuple[CheckStatistics, ...]
    """The replicas of the present set."""


class HealthChecker(TaskOwner):
    """Finds the replicas that are down: checks each one every ``every`` seconds with a GET. An async context manager.

    A check passes if a 2xx response of at most BODY_MAX bytes is complete within ``every`` seconds. A replica is up
    until ``unhealthy`` checks in a row failed, then down until ``healthy`` checks in a row passed. The first check of a
    replica comes after a random part of ``every``, so that the checks of many replicas and processes are spread. A
    replica has one check at a time, so checks use at most one connection per replica.

    The set of a source may change: a new replica begins as up, a replica that stays keeps its state and its schedule,
    and the check of a replica that leaves is cancelled.

    Checks run only inside the context, which must be left before the pool is. The same task may enter it again; the
    outermost exit cancels the checks. After an internal error the checks of the replica go on after a pause.

    Args:
        pool: makes the connections.
        replicas: base URLs, ``Replica`` objects, or a source of replicas, which is entered with the checks.
        path: absolute path with an optional query; it is appended to the replica's base path.
        every: seconds between two checks of a replica, and the time limit of a check.
        healthy: number of checks in a row that pass before a replica is up again.
        unhealthy: number of checks in a row that fail before a replica is down.
        user_agent: value of the field User-Agent; empty: no such field.
        rng: source of the random first pause.
        name: name of the upstream in records.
        recorder: receives ``health.down``, ``health.up`` and ``health.crashed``.

    Raises:
        ValueError: no replica, or a number out of range.
        BadRequest: ``path`` is no path with an optional query, or as ``Replica.parse``.
        httpx.InvalidURL: as ``Replica.parse``.
    """

    def __init__(
        self,
        pool: Pool,
        replicas: Sequence[Replica | str] | ReplicaSource,
        *,
        path: str = "/",
        every: float = 5.0,
        healthy: int = 2,
        unhealthy: int = 3,
        user_agent: bytes = PRODUCT.encode("ascii"),
        rng: random.Random | None = None,
        name: str = "",
        recorder: Recorder = NULL,
    ) -> None:
        if every <= 0:
            raise ValueError("every must be more than 0 seconds")
        self._pool = pool
        self._source = source_of(replicas)
        super().__init__(BackgroundNursery("the health checks"), self._source)
        self._path = path
        self._user_agent = user_agent
        self._healthy = healthy
        self._unhealthy = unhealthy
        self._standing = partial(HealthState, healthy=healthy, unhealthy=unhealthy)
        self._standing()  # Numbers out of range raise here, also for a source without replicas.
        self._every = every
        self._rng = rng or random.Random()
        self._recorder = recorder
        self._events = StateEvents(recorder, name)
        self._checked: dict[Replica, _CheckedReplica] = {}
        self.down: frozenset[str] = frozenset()
        """Names of the replicas that are down."""
        self._update_replicas(self._source.replicas)

    async def _begin(self) -> None:
        self._nursery.start_soon(self._follow_source)

    def statistics(self) -> HealthStatistics:
        """A snapshot."""
        return HealthStatistics(tuple(checked.statistics() for checked in self._checked.values()))

    async def _follow_source(self) -> None:
        """Run a task for each replica of the source, for as long as the replica is in the set."""
        under_way: dict[Replica, trio.CancelScope] = {}
        async with trio.open_nursery() as nursery, aclosing(self._source.changes.eventual_values()) as sets:
            async for replicas in sets:
                self._update_replicas(replicas)
                for replica in under_way.keys() - self._checked.keys():
                    under_way.pop(replica).cancel(reason="the replica has left")
                for replica, checked in self._checked.items():
                    if replica not in under_way:
                        under_way[replica] = scope = trio.CancelScope()
                        nursery.start_soon(self._check_forever, checked, scope, name=f"health {replica.name}")

    def _update_replicas(self, replicas: Sequence[Replica]) -> None:
        """Adopt a set: replicas that stay keep their state, new replicas begin as up."""
        self._checked = {
            each: self._checked.get(each) or _CheckedReplica(each, self._path, self._user_agent, self._standing())
            for each in replicas
        }
        self._update_down()

    def _update_down(self) -> None:
        self.down = frozenset(each.name for each, checked in self._checked.items() if not checked.standing.up)

    async def _check_forever(self, checked: _CheckedReplica, scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep(self._rng.random() * self._every)
            while True:
                try:
                    await self._check_periodically(checked)
                except Exception as error:  # noqa: BLE001  # an internal error must not end the checks or the client
                    checked.crashes += 1
                    checked.crashed_in_a_row += 1
                    message = f"a health check of {checked.replica.name} crashed"
                    fields = {"upstream": self._events.upstream, "replica": checked.replica.name}
                    self._recorder.record(LogMessage("error", "health.crashed", message, fields=fields, error=error))
                await trio.sleep(min(BACKOFF_SECONDS * 2 ** min(checked.crashed_in_a_row - 1, 16), BACKOFF_MAX))

    async def _check_periodically(self, checked: _CheckedReplica) -> None:
        # ``aclosing``, because trio warns of an async generator that is left to the garbage collector.
        async with aclosing(periodic(self._every)) as turns:
            async for _ in turns:
                passed = await self._passes(checked)
                checked.checks += 1
                checked.failures += not passed
                checked.crashed_in_a_row = 0
                if checked.standing.checked(passed):
                    self._record_change(checked)

    async def _passes(self, checked: _CheckedReplica) -> bool:
        with trio.CancelScope(deadline=trio.current_time() + self._every) as scope:
            try:
                response = await self._pool.send(checked.replica.origin, checked.request)
                await _read(response)
            except httpx.HTTPError:
                return False
        return not scope.cancelled_caught and 200 <= response.status_code <= 299

    def _record_change(self, checked: _CheckedReplica) -> None:
        self._update_down()
        if checked.standing.up:
            self._events.up(checked.replica.name, self._healthy)
        else:
            self._events.down(checked.replica.name, self._unhealthy)


class _CheckedReplica:
    """A replica that is checked: its health state, its counters, and the encoded request of a check."""

    def __init__(self, replica: Replica, path: str, user_agent: bytes, standing: HealthState) -> None:
        self.replica = replica
        self.standing = standing
        self.checks = self.failures = self.crashes = self.crashed_in_a_row = 0
        named = ((b"accept", b"*/*"), (b"user-agent", user_agent))
        fields = [(name, name, value) for name, value in named if value]
        self.request: EncodedRequest = encode_request("GET", replica.base + path.encode("ascii"), fields, replica.host)

    def statistics(self) -> CheckStatistics:
        return CheckStatistics(self.replica.name, self.standing.up, self.checks, self.failures, self.crashes)


async def _read(response: httpx.Response) -> None:
    """Read a body and discard it. Cancelled, it closes the connection.

    Raises:
        TooBig: the body is longer than BODY_MAX.
    """
    stream, size = response.stream, 0
    if isinstance(stream, httpx.ByteStream):
        return
    assert isinstance(stream, httpx.AsyncByteStream)
    try:
        async with pieces_of(stream) as pieces:
            async for piece in pieces:
                size += len(piece)
                if size > BODY_MAX:
                    raise TooBig(f"the response to a health check is larger than {BODY_MAX} bytes")
    finally:
        # Before the end of the body this closes the connection; after it, this does nothing.
        await stream.aclose()
