"""The requests and calls that frames of the gateway hold, for the task tree (``observe.tree.reader.Frames``).

A request for a configured route runs on the task of its connection, and a call has no task at all. So the tree would
show neither. The frames of the task have both: ``RequestCycle.run`` the request, ``Engine.run_loop`` the composition
with its calls. They are read when somebody looks; a request costs nothing for it.
"""

from __future__ import annotations

import math
from types import FrameType
from typing import TYPE_CHECKING, Any

from ...composition.engine import Engine
from ...observe.tree.nodes import AttemptNode, CallNode, RequestNode
from ..request_cycle import RequestCycle

if TYPE_CHECKING:
    from ...core.call import Call
    from ...core.model import Attempt, Outcome
    from ...observe.tree.reader import Frames

CALLS_MAX = 50
"""The bound on calls that are described of one request."""
_ATTEMPTS_MAX = 8


def request_of(frame: FrameType, now: float) -> RequestNode | None:
    """The request that a frame of ``RequestCycle.run`` answers."""
    cycle: RequestCycle | None = frame.f_locals.get("self")
    if cycle is None:
        return None
    facts = cycle.facts
    return RequestNode(
        id=facts.request_id,
        method=facts.method,
        path=facts.path,
        route=facts.route,
        age=_round(now - facts.started_at),
        left=None if math.isinf(facts.deadline) else _round(facts.deadline - now),
    )


def calls_of(frame: FrameType, now: float) -> tuple[CallNode, ...]:
    """The calls of the composition that a frame of ``Engine.run_loop`` runs: the ended ones, then those under way."""
    engine: Engine | None = frame.f_locals.get("self")
    if engine is None:
        return ()
    calls = [_ended_call(outcome) for outcome in list(engine.outcomes.values())[:CALLS_MAX]]
    by_name: dict[str, CallNode] = {}
    for running, call in list(engine.under_way.items())[:CALLS_MAX]:
        if running.fan_out is None:
            by_name[running.call] = _call(call, now)
        else:
            started = running.fan_out.started_at
            by_name[running.call] = CallNode(
                name=running.call,
                upstream=running.upstream,
                state="running",
                age=_round(now - started),
                items=running.fan_out.under_way,
            )
    waiting = [CallNode(name=call.name, upstream=call.upstream, state="waiting") for call in engine.calls_to_come()]
    return tuple([*calls, *by_name.values(), *waiting][:CALLS_MAX])


FRAMES: Frames = {RequestCycle.run.__code__: request_of, Engine.run_loop.__code__: calls_of}
"""The readers of the gateway's frames."""


def _call(call: Call, now: float) -> CallNode:
    running: Any = call.context
    # An ``UpstreamCall`` has states and attempts; a call of a transport or a waiter for a shared call has none.
    state = getattr(call, "state", "shared" if hasattr(call, "done") else "running")
    under_way = list(getattr(call, "under_way", ()))
    if state == "running" and not under_way and hasattr(call, "client"):
        state = "pause"
    ended = [_ended_attempt(attempt) for attempt in running.attempts]
    attempts = [
        AttemptNode(
            cause=attempt.cause,
            replica="" if attempt.slot is None else attempt.slot.name,
            state=attempt.state,
            status=attempt.status,
            age=_round(now - attempt.started_at) if attempt.started_at else None,
        )
        for attempt in under_way
    ]
    return CallNode(
        name=running.call,
        upstream=running.upstream,
        state=state,
        age=_round(now - running.started_at),
        attempts=tuple([*ended, *attempts][-_ATTEMPTS_MAX:]),
    )


def _ended_call(outcome: Outcome) -> CallNode:
    started = outcome.started_at
    return CallNode(
        name=outcome.call,
        state=outcome.state,
        why="" if outcome.failure is None else str(outcome.failure.kind),
        age=None if started is None else _round(outcome.ended_at - started),
        attempts=tuple(_ended_attempt(attempt) for attempt in outcome.attempts[-_ATTEMPTS_MAX:]),
    )


def _ended_attempt(attempt: Attempt) -> AttemptNode:
    return AttemptNode(
        cause=attempt.cause,
        replica=attempt.replica,
        state="ended" if attempt.kind is None else str(attempt.kind),
        status=attempt.status,
        age=_round(attempt.ended_at - attempt.started_at),
    )


def _round(seconds: float) -> float:
    return round(seconds, 4)
