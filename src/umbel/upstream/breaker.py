"""The breaker layer: refuses calls to an upstream that fails, at once, and later lets one through to see.

The outermost layer but coalescing, before the bulkhead, so that a refused call never queues. It admits once per call
and is told of each attempt by the attempt layer, through the call's ticket; the decision is ``policy/breaker.py``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import httpx
import trio

from ..events import NULL, Recorder
from ..kinds import Kind
from ..model import facts_of
from ..policy.breaker import BreakerPolicy, BreakerSnapshot, State, Ticket
from .changes import Changes
from .ending import kind_of_end, limit_of
from .errors import BreakerOpen, BudgetSpent
from .layer import Layer
from .perorigin import OriginKey, PerOrigin, key_of, name_of
from .state import call_state, opened
from .watched import Watched


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A snapshot of a breaker layer."""

    origins: Mapping[str, BreakerSnapshot]
    """By origin; in a stack there is one, the upstream."""


class Breaker(Layer):
    """Opens when at least ``failure_ratio`` of ``min_requests`` or more attempts in a window failed.

    Open, it refuses every call for ``open_for`` seconds; then one call at a time is let through as a probe. If the
    probe is answered the breaker closes, if it fails the breaker opens anew, and if it is cancelled (or never sent)
    the next call is the probe.

    What counts is each attempt where an ``Attempt`` layer stands below and the request belongs to a call, else what
    comes of the call here; as a failure what the table of kinds says (connect, dns, tls, timeout, reset, malformed) and
    every 5xx. A cancel never counts, but for an attempt that its own deadline ended (``ending.kind_of_end``). A
    streamed response is judged when it is closed, a probe's by its head.

    In a stack every request has one origin here, so there is one state; alone, each origin has its own.

    Args:
        window: seconds that are looked at.
        min_requests: attempts in the window under which it never opens.
        failure_ratio: the failed part of them, 0 to 1.
        open_for: seconds until the first probe.
        name: what records call the upstream; None for the origin.
        recorder: gets ``breaker.open``, ``breaker.half-open`` and ``breaker.closed``.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        window: float = 10.0,
        min_requests: int = 20,
        failure_ratio: float = 0.5,
        open_for: float = 5.0,
        name: str | None = None,
        recorder: Recorder = NULL,
    ) -> None:
        super().__init__(transport)

        def made(key: OriginKey) -> BreakerPolicy:
            return BreakerPolicy(
                window=window,
                min_requests=min_requests,
                failure_ratio=failure_ratio,
                open_for=open_for,
                changed=Changes(recorder, name or name_of(key)).breaker,
            )

        made(("http", "", None))  # Bad numbers are told of here, not by the first call.
        self._policies = PerOrigin(made)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below, if the breaker lets the call pass.

        Raises:
            BreakerOpen: it does not. Nothing was sent.
        """
        policy = self._policies.of(key_of(request.url))
        started_at = trio.current_time()
        ticket = policy.admit(started_at)
        if ticket is None:
            left = policy.retry_after(started_at)
            raise BreakerOpen(
                "a probe is on its way" if left is None else f"the breaker is open for {left:.1f} s more",
                retry_after=left,
            )
        try:
            request, state = opened(request)
            state.ticket = ticket
            response = await self._transport.handle_async_request(request)
        except BaseException as error:
            _judge(ticket, request, started_at, None, error)
            ticket.ended()
            raise
        if not ticket.reported:
            judge = partial(_judge, ticket, request, started_at, response.status_code)
            if response.is_closed or ticket.is_probe:
                judge(None)
            else:
                response.stream = Watched(response, judge)
        ticket.ended()
        return response

    def admit(self, key: OriginKey, now: float) -> Ticket | None:
        """The ticket of a call without a task of its own (``express.py``), if the breaker is closed.

        Whoever has it calls its ``ended``.
        """
        policy = self._policies.of(key)
        return policy.admit(now) if policy.state is State.CLOSED else None

    def statistics(self) -> BreakerStatistics:
        """A snapshot."""
        now = trio.current_time()
        return BreakerStatistics(self._policies.snapshot(lambda policy: policy.statistics(now)))


def _judge(
    ticket: Ticket, request: httpx.Request, started_at: float, status: int | None, error: BaseException | None
) -> None:
    """Tell the ticket what came of its call, if nobody told it of the attempts."""
    if ticket.reported or isinstance(error, BudgetSpent):
        return
    facts, state = facts_of(request), call_state(request)
    kind = None if error is None else kind_of_end(error, facts, started_at, limit_of(request))
    if not isinstance(error, Exception | None) and (
        # Of a call of the composition the attempt layer tells. Of others, a cancel counts if their limit made it, and
        # not while they waited for a place.
        kind is not Kind.TIMEOUT or facts is not None or state is None or state.queued
    ):
        return
    ticket.attempted(trio.current_time(), kind, status)
