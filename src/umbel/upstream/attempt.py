"""The attempt layer: one physical request, told the time that is left, traced, and recorded whatever becomes of it.

Stands below everything that may make more than one attempt of a call, and above the body, so that a late or broken
body is a failed attempt. It decides nothing.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache

import httpx
import trio

from ..errors import UpstreamError
from ..events import AttemptEnded
from ..kinds import CUT, Kind
from ..model import Attempt as AttemptRecord
from ..model import CallFacts, Trace, facts_of
from .ending import kind_of_end
from .errors import BudgetSpent
from .layer import Layer
from .notes import NOTES, REPLACES, Notes
from .origin import REPLICA, Replica
from .rewrite import rewritten
from .state import Cause, Ticket, call_state


class Attempt(Layer):
    """Makes each request that belongs to a call (``model.FACTS``) an attempt of it; others pass as they are.

    Adds ``deadline_header`` with the milliseconds left, and the call's trace context under a fresh parent id. Appends a
    ``model.Attempt`` to the call's facts and emits ``AttemptEnded``, for a cancelled attempt too, with the kind that
    its end means. Tells the breaker's ticket (``state.ticket``) of every attempt that nobody else cut short. If nothing
    of the time is left, no attempt is made.

    Args:
        deadline_header: the field's name; None for none.
        rng: where parent ids come from.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        deadline_header: str | None = "x-envoy-expected-rq-timeout-ms",
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(transport)
        self._deadline_header = deadline_header.encode("ascii") if deadline_header else None
        self._rng = rng or random.Random()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below.

        Raises:
            BudgetSpent: the call's deadline has passed.
        """
        facts = facts_of(request)
        if facts is None:
            return await self._transport.handle_async_request(request)
        extensions = request.extensions
        started_at: float = extensions[REPLACES] if REPLACES in extensions else trio.current_time()
        if started_at >= facts.deadline:
            raise BudgetSpent("nothing of the call's time was left")
        state = call_state(request)
        # Read now: a hedge of the same call, under way at the same time, says another one.
        cause = state.cause if state is not None else "first"
        notes = Notes()
        copy = rewritten(request, self._fields(facts, facts.deadline - started_at), extensions={NOTES: notes})
        replica: Replica | None = extensions.get(REPLICA)
        name = replica.name if replica is not None else str(request.url)
        kind: Kind | None = None
        detail = ""
        try:
            response = await self._transport.handle_async_request(copy)
            notes.status = response.status_code
            return response
        except BaseException as error:
            kind, detail = kind_of_end(error, facts, started_at), detail_of(error)
            raise
        finally:
            ticket = None if state is None else state.ticket
            now = trio.current_time()
            ended(now, facts, ticket, name, started_at, notes.status, kind, notes.reused, cause, detail)

    def lines(self, facts: CallFacts, left: float) -> bytes | None:
        """What an attempt adds to the request's head, as lines; None where that must be looked at (a tracestate)."""
        trace = facts.request.trace
        if trace.state:
            return None
        before, after = _around_parent(trace)
        if self._deadline_header is None or left == math.inf:
            return b"%b%016x%b" % (before, self._rng.getrandbits(64) or 1, after)
        deadline = (self._deadline_header, int(left * 1000) or 1)
        return b"%b%016x%b%b: %d\r\n" % (before, self._rng.getrandbits(64) or 1, after, *deadline)

    def _fields(self, facts: CallFacts, left: float) -> dict[bytes, bytes]:
        trace = facts.request.trace
        # An id of zeros means "none" (W3C Trace Context section 3.2.2.4).
        fields = {b"traceparent": trace.header(f"{self._rng.getrandbits(64) or 1:016x}").encode("ascii")}
        if trace.state:
            fields[b"tracestate"] = trace.state.encode("ascii")
        if self._deadline_header is not None and left < math.inf:
            fields[self._deadline_header] = b"%d" % max(1, int(left * 1000))
        return fields


@lru_cache(maxsize=64)
def _around_parent(trace: Trace) -> tuple[bytes, bytes]:
    """The line of ``traceparent`` before and after the parent id: all attempts of a request have the same."""
    before, _, after = f"traceparent: {trace.header('*')}\r\n".encode("ascii").partition(b"*")
    return before, after


def ended(
    now: float,
    facts: CallFacts,
    ticket: Ticket | None,
    replica: str,
    started_at: float,
    status: int | None,
    kind: Kind | None,
    reused: bool,
    cause: Cause,
    detail: str,
) -> None:
    """Record an attempt that is over, and tell the breaker of it unless somebody cut it short."""
    record = AttemptRecord(len(facts.attempts) + 1, replica, started_at, now, status, kind, reused, cause)
    facts.attempts.append(record)
    if getattr(facts.recorder, "takes_attempts", True):
        facts.recorder.record(AttemptEnded(facts.request, facts.call, facts.upstream, record, detail))
    if ticket is not None and kind not in CUT:
        ticket.attempted(now, kind, status)


def detail_of(error: BaseException) -> str:
    """One sentence for the record of an attempt that this ended."""
    return error.detail if isinstance(error, UpstreamError) else repr(error)
