"""The balance layer: which replica an attempt goes to, and what of the request that decides.

Stands right above the attempt layer, so that each attempt takes a replica of its own. The decisions are the policies'
(``policy/balance.py``, ``load.py``, ``ejection.py``); all that an attempt takes from its replica was prepared before.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import httpx
import trio

from ..errors import UpstreamError
from ..events import NULL, Recorder
from ..kinds import Kind
from ..model import facts_of
from ..policy.balance import Picker, PowerOfTwo, RoundRobin, Weighted, usable
from ..policy.ejection import Ejection, EjectionRules
from ..policy.failover import Failovers
from ..policy.load import Loads
from ..policy.member import Member
from ..policy.verdict import failed
from .again import FAILURES, ending_of
from .changes import Changes
from .ending import failed_by, limit_of, overtaken
from .health import Health
from .layer import Layer
from .origin import REPLICA, Replica
from .replicas import ReplicaSource, source_of
from .rewrite import rewritten
from .state import CallState, call_state
from .watched import Watched

PolicyName = Literal["p2c", "round_robin", "weighted"]


@dataclass(frozen=True, slots=True)
class ReplicaStatistics:
    """A snapshot of one replica."""

    name: str
    """Its base URL."""
    in_flight: int
    taken: int
    """Attempts that it was given, since it is in the set."""
    failed: int
    """Those of them that failed by its fault."""
    usual: float
    """Seconds that its answers usually take."""
    ejected_for: float
    """Seconds until it is back; 0 if it is not ejected."""
    up: bool
    """What its health checks say; True without any."""


@dataclass(frozen=True, slots=True)
class BalanceStatistics:
    """A snapshot of the balance layer."""

    replicas: tuple[ReplicaStatistics, ...]
    """Those of the set as it is now."""
    ejections: int
    """Since the beginning."""
    failovers: int
    """Attempts lost with a dying replica that their calls may make again without budget, since the beginning."""


class Balance(Layer):
    """Gives each request to one of ``replicas``: base URLs, or replicas made of them, or a source of such.

    The replica gives URL, Host and the base path; the target stays what ``extensions["target"]`` or the URL says. A
    replica is in flight until its response is complete or closed; a cancelled one is free at once, and says nothing of
    its replica unless its own deadline ended it (``ending.kind_of_end``).

    A replica that this call has tried, that is ejected or that is down by its health checks is taken only if no other
    is left (``policy.balance.usable``).

    Of an attempt that is lost with its replica, the call is told that the repeat is failover and needs no budget
    (``policy.failover``).

    A source is entered with the layer, and followed: each request sees the set as it is at that moment. A replica that
    stays keeps all that is known of it; one that leaves is forgotten, though what is in flight there ends as it would
    have, and one that comes back is new. While the set is empty every request fails with what the source says.

    Args:
        policy: ``p2c`` takes the less loaded of two that chance picked, where one that just failed counts as busy for
            as long as its answers usually take (0.1 s at least); ``round_robin`` takes them in turn; ``weighted`` takes
            them in turn as often as ``weights`` says.
        weights: whole numbers, one for each replica; for ``weighted`` alone. A source has its own.
        ejection: when a replica that fails is left out for a while; None for never. The last one never is.
        health: checks of the same replicas (or of the same source); the layer runs them while it is entered.
        rng: where ``p2c`` has its chance from.
        name: what records call the upstream.
        recorder: gets ``ejection.out`` and ``ejection.back``.

    Raises:
        ValueError: no replica at all, or weights that do not fit.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        replicas: Sequence[Replica | str] | ReplicaSource,
        *,
        policy: PolicyName = "p2c",
        weights: Sequence[int] | None = None,
        ejection: EjectionRules | None = EjectionRules(),  # noqa: B008  # frozen, so it may be shared
        health: Health | None = None,
        rng: random.Random | None = None,
        name: str = "",
        recorder: Recorder = NULL,
    ) -> None:
        super().__init__(transport)
        self._entered: list[AsyncExitStack] = []
        if isinstance(replicas, Sequence) and (weights is not None) != (policy == "weighted"):
            raise ValueError('weights are for the policy "weighted", which needs them')
        self._source = source_of(replicas, weights)
        self._loads = Loads()
        self._failovers = Failovers(self._loads)
        self._picker = self._chosen(policy, rng or random.Random())
        self._changes = Changes(recorder, name)
        self._ejection = None if ejection is None else Ejection(ejection, self._tell)
        self._health = health
        self._replicas: tuple[Replica, ...] = ()
        """The source's set that the seats are made for."""
        self._seats: tuple[Seat, ...] = ()
        self._follow(0.0)  # Nobody is out yet, so any time will do.

    def _chosen(self, policy: PolicyName, rng: random.Random) -> Picker:
        if policy == "p2c":
            return PowerOfTwo(self._loads, rng)
        return RoundRobin() if policy == "round_robin" else Weighted()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._transport)
            await stack.enter_async_context(self._source)
            if self._health is not None:
                await stack.enter_async_context(self._health)
            self._entered.append(stack.pop_all())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._entered.pop().__aexit__(exc_type, exc_value, traceback)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below for the same at the replica that is next.

        Raises:
            UpstreamError: of kind dns or connect: the source knows no replica. Nothing was sent.
        """
        started_at = trio.current_time()
        if self._source.replicas is not self._replicas:
            self._follow(started_at)
        state = call_state(request)
        if not self._seats:
            raise self._missing(started_at, request, state)
        seat = self._pick(started_at, state.tried if state is not None else ())
        # Read now: a hedge of the same call, under way at the same time, says another one.
        is_hedge = state is not None and state.cause == "hedge"
        attempt = state.begun(seat.name, started_at) if state is not None else None
        replica = seat.replica
        target: bytes = request.extensions.get("target") or request.url.raw_path
        copy = rewritten(
            request,
            {b"host": replica.host},
            url=replica.url,
            extensions={"target": replica.base + target, REPLICA: replica},
        )
        try:
            response = await self._transport.handle_async_request(copy)
        except BaseException as error:
            self.ended(
                trio.current_time(),
                seat,
                started_at,
                failed_by(error, facts_of(request), started_at, limit_of(request)),
            )
            if state is not None:
                if isinstance(error, FAILURES):
                    self.lost(seat, error, state)
                elif not is_hedge and overtaken(error):
                    now = trio.current_time()
                    self._loads.overtaken(now, seat, now - started_at)
            raise
        finally:
            if state is not None and attempt is not None:
                state.ended(attempt)
        if response.is_closed:
            self.ended(trio.current_time(), seat, started_at, failed(None, response.status_code))
        else:
            facts, limit, status = facts_of(request), limit_of(request), response.status_code

            def over(error: BaseException | None) -> None:
                verdict = failed(None, status) if error is None else failed_by(error, facts, started_at, limit)
                self.ended(trio.current_time(), seat, started_at, verdict)

            response.stream = Watched(response, over)
        return response

    def statistics(self) -> BalanceStatistics:
        """A snapshot."""
        now = trio.current_time()
        if self._source.replicas is not self._replicas:
            self._follow(now)
        ejection, down = self._ejection, self._down
        replicas = tuple(
            ReplicaStatistics(
                name=seat.name,
                in_flight=seat.in_flight,
                taken=seat.taken,
                failed=seat.failed,
                usual=self._loads.usual(seat),
                ejected_for=0.0 if ejection is None else ejection.left(now, seat),
                up=seat.name not in down,
            )
            for seat in self._seats
        )
        return BalanceStatistics(replicas, 0 if ejection is None else ejection.ejected, self._failovers.granted)

    # For requests without a task of their own (``express.py``).

    def take(self, now: float) -> Seat | None:
        """The replica that is next, taken; None while there is none. Whoever has it calls ``ended``."""
        if self._source.replicas is not self._replicas:
            self._follow(now)
        if len(self._seats) != 1:
            return self._pick(now, ()) if self._seats else None
        # One replica is always the next, whatever its state.
        seat = self._seats[0]
        seat.taken += 1
        self._loads.begun(seat)
        return seat

    @property
    def _down(self) -> frozenset[str]:
        return self._health.down if self._health is not None else frozenset()

    def _follow(self, now: float) -> None:
        """Take the source's set as it is now: the seats of those that stay, and new ones for the others."""
        staying = {seat.replica: seat for seat in self._seats}
        self._replicas = self._source.replicas
        self._seats = tuple(staying.get(replica) or Seat(replica) for replica in self._replicas)
        for seat, weight in zip(self._seats, self._source.weights, strict=True):
            seat.weight = weight
        self._loads.follow(self._seats)
        self._picker.follow(self._seats)
        if self._ejection is not None:
            self._ejection.follow(now, self._seats)

    def _tell(self, member: Member, is_out: bool) -> None:
        """A replica was put out, or is back."""
        if is_out:
            self._changes.ejected(member.name, member.back_at - trio.current_time())
        else:
            self._changes.returned(member.name)

    def _missing(self, now: float, request: httpx.Request, state: CallState | None) -> UpstreamError:
        """Why there is nobody to ask, told to the breaker as the attempt that it would have been.

        So it counts as the table of kinds says, like a name that the pool cannot resolve, which fails below the attempt
        layer. Nothing is sent either way; but an open breaker ends the call before its retries wait and spend budget.
        """
        error = self._source.missing()
        # Of a request that belongs to no call the breaker judges the whole: nobody below would tell it of the others.
        if state is not None and state.ticket is not None and facts_of(request) is not None:
            state.ticket.attempted(now, error.kind, None)
        return error

    def _pick(self, now: float, tried: Sequence[str]) -> Seat:
        out = self._ejection.out(now) if self._ejection is not None else ()
        seat = self._picker.pick(now, usable(self._seats, self._down, out, tried))
        seat.taken += 1
        self._loads.begun(seat)
        return seat

    def ended(self, now: float, seat: Seat, started_at: float, has_failed: bool | None) -> None:
        """The attempt on ``seat`` is over; ``has_failed`` as of ``ending.failed_by``."""
        self._loads.ended(now, seat, now - started_at, has_failed)
        if has_failed is None:
            return
        seat.failed += has_failed
        if self._ejection is not None:
            self._ejection.ended(now, seat, has_failed)

    def lost(self, seat: Seat, error: Exception, state: CallState) -> None:
        """If the connection was lost before the upstream had answered at all, the repeat elsewhere may be failover."""
        kind, _, untouched, _ = ending_of(error)
        if kind is not Kind.CONNECT and not untouched:
            return
        now = trio.current_time()
        out = self._ejection.out(now) if self._ejection is not None else ()
        left_out = (self._down, out, state.tried)
        others = [each for each in self._seats if not any(each.name in names for names in left_out)]
        state.failovers += self._failovers.lost(now, seat, others)


class Seat(Member):
    """A replica in the set: what the policies know of it, and what the layer counts. Attempts in flight hold theirs."""

    __slots__ = ("failed", "replica", "taken")

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica.name)
        self.replica = replica
        self.taken = 0
        self.failed = 0
