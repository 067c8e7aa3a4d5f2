"""Streamed composition: one line per outcome as soon as its call ends, and the composed answer as the last line.

The lines are values, which are written as NDJSON or as server-sent events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import trio

from ..core.events import Recorder
from ..core.failure_kinds import CUT
from ..core.http.forward_all import CONDITIONS
from ..core.model import Failure, Inputs, Json, Outcome, RequestFacts
from .answer.result import Result
from .engine import Callers
from .fan_out import ItemOutcome
from .plan.plan import Copy, Plan, request_context
from .plan_run import Observer, run
from .text.field_template import FieldTemplate


@dataclass(frozen=True, slots=True)
class StreamLine:
    """One line of a stream."""

    event: str
    """The name of the call; "end" for the last line."""
    data: Mapping[str, Json]
    terminal: Result | None = None
    """The result of the composition in the last line; None in any other line."""

    def ndjson(self) -> bytes:
        """The line as newline-delimited JSON."""
        return msgspec.json.encode(self.data) + b"\n"

    def sse(self) -> bytes:
        """The line as a server-sent event (WHATWG HTML, section 9.2). Encoded JSON holds no line break."""
        return b"event: %b\ndata: %b\n\n" % (self.event.encode(), msgspec.json.encode(self.data))


def capacity(plan: Plan) -> int:
    """The most lines that a run of the plan sends: with a channel of this size, sending never waits."""
    return 1 + sum(1 if call.fan_out is None else 1 + call.config.max_items for call in plan.calls)


def head_fields(plan: Plan, inputs: Inputs) -> list[tuple[str, str]]:
    """The configured header fields for the head of a stream: those that read only the request.

    The head is sent before the calls have ended, so fields that read a call, or are forwarded from one, are left out.
    """
    context = request_context(plan, inputs)
    return [
        (name, value.decode("latin-1"))
        for name, template in plan.answer_headers
        if fits_stream_head(template) and (value := template.expand(context, {})) is not None
    ]


def fits_stream_head(template: FieldTemplate) -> bool:
    """Whether a field of the answer can be in the head of a stream: its template reads only the request."""
    return all(variable.client_parameter for variable in template.variables)


async def run_stream(
    plan: Plan,
    inputs: Inputs,
    facts: RequestFacts,
    callers: Callers,
    recorder: Recorder,
    send: trio.MemorySendChannel[StreamLine],
    outcomes: dict[str, Outcome] | None = None,
    copies: list[Copy] | None = None,
) -> None:
    """Run the plan, send one line per outcome and a last line with the result, then close the channel.

    The outcome with whose failure the composition fails has no line of its own: the last line has the problem document
    of that failure. So if the first line is also the last one, an ordinary problem document can still be sent instead
    of a stream. With first and quorum, an outcome that ends the composition with an earlier failure has a line. Calls
    that were cut have none. A closed receiver is no error.

    Cancelled, it cancels the calls under way, closes the channel and raises ``Cancelled``.

    Args:
        send: a channel that holds ``capacity(plan)`` lines, so that a slow client never delays the calls.
        outcomes, copies: as in ``plan_run.run``, like the other arguments.
    """
    if any(call.conditions for call in plan.calls):
        # The head of a stream is sent before any call has ended, so its status cannot be a 304.
        headers = {name: value for name, value in inputs.headers.items() if name not in CONDITIONS}
        inputs = msgspec.structs.replace(inputs, headers=headers)
    with send:
        lines = _LineSender(plan, send)
        result = await run(plan, inputs, facts, callers, recorder, lines, outcomes, None, copies)
        if result.failure is not None:
            data: dict[str, Json] = {"end": True, "problem": result.problem(facts.request_id).document()}
        else:
            data = {"end": True, "completed": result.completed, "answer": result.answer}
        lines.put(StreamLine("end", data, result))


class _LineSender(Observer):
    """An observer that sends one line per outcome, except for cut calls and the deciding failure."""

    def __init__(self, plan: Plan, send: trio.MemorySendChannel[StreamLine]) -> None:
        self._fan_outs = frozenset(call.name for call in plan.calls if call.fan_out is not None)
        self._send = send
        self._sent_indices: dict[str, set[int]] = {name: set() for name in self._fan_outs}

    def item_ended(self, call: str, ended: ItemOutcome) -> None:
        for place in ended.item.places:
            self._put_item(call, place, ended.value, ended.failure)

    def call_ended(self, outcome: Outcome, *, decisive: bool) -> None:
        if decisive or (outcome.failure is not None and outcome.failure.kind in CUT):
            return
        if outcome.failure is not None:
            self.put(StreamLine(outcome.call, {"call": outcome.call, "failure": _failure_data(outcome.failure)}))
        elif outcome.call not in self._fan_outs:
            self.put(StreamLine(outcome.call, {"call": outcome.call, "value": outcome.value}))
        for failed in outcome.failed_items:
            for place in failed.places:
                if place not in self._sent_indices[outcome.call]:
                    self._put_item(outcome.call, place, None, failed.failure)

    def put(self, line: StreamLine) -> None:
        try:
            self._send.send_nowait(line)
        except trio.BrokenResourceError:
            # The receiver is closed, so the request is being cancelled; the cancel ends the composition.
            return

    def _put_item(self, call: str, place: int, value: Json, failure: Failure | None) -> None:
        self._sent_indices[call].add(place)
        data = {"value": value} if failure is None else {"failure": _failure_data(failure)}
        self.put(StreamLine(call, {"call": call, "index": place, **data}))


def _failure_data(failure: Failure) -> dict[str, Json]:
    received = {} if failure.received_status is None else {"received_status": failure.received_status}
    return {"kind": str(failure.kind), "status": failure.status, **received}
