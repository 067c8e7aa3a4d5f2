"""Mirrors: copies of requests to a second upstream, whose responses are dropped.

Theory
------
**Problem.** A new version of an upstream is tried with real requests, and nobody must notice: neither a client, whose
answer must be neither later nor different, nor the calls of the mirror's upstream, if it has any.

**After the answer.** ``send`` is called when the response to the client is over. It starts a task and returns. The task
makes the request, waits for the response, and drops it. It runs in the nursery of ``Mirrors``, so neither the end of
the inbound request nor its client ends it. It ends at the time limit of the copy, and when ``Mirrors`` is closed.

**Limits of their own.** A copy goes through a caller that serves copies only (``from_config.build_mirror``): its
bulkhead, breaker, connections and view of the replicas are not those of calls. Besides, at most COPIES_MAX copies of an
upstream are in flight in a process, and their bodies have at most BYTES_MAX bytes together. A copy beyond that is not
made, and counted. There is no queue: a copy that waits would only be late. So an upstream that hangs holds COPIES_MAX
tasks, connections and requests, for as long as a copy may last.

**Streamed copies.** A copy of a proxied request is a ``StreamingCall``, as that request is, because only such a call
sends the fields as they are: Accept-Encoding, TE and Host of the client, and no field about the time left. Its body is
dropped as it comes, undecoded, up to DROPPED_MAX bytes; behind them the connection is closed.

**Failures.** A copy that gets no whole response, or a 5xx, is counted as failed, and recorded as a failed call of its
upstream, whose attempt has the cause "mirror". A slow one is recorded as well. An exception that no call should raise
is recorded as a crash. Nothing reaches the nursery but cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import trio
from msgspec.structs import replace

from ..core.call import (
    Call,
    CallContext,
    Caller,
    PreparedRequest,
    SingleCallOwner,
    StreamingCall,
    StreamLimits,
)
from ..core.errors import UpstreamError
from ..core.events import CallEnded, LogMessage, Recorder
from ..core.failure_kinds import Kind
from ..core.model import Failure, Outcome, RequestFacts
from .background_tasks import BackgroundNursery, TaskOwner

COPIES_MAX = 100
"""Bound on the copies of an upstream that are in flight: the default of ``max_concurrency``."""
DROPPED_MAX = 10 * 2**20
"""Bytes of the response to a streamed copy that are received. A longer response is not waited for."""
BYTES_MAX = 16 * 2**20
"""Bound on the bytes of the bodies of these copies together."""

CopyResult = Literal["ok", "failed", "overflow", "cancelled"]
"""ok: a whole response came, below 500; failed: none came, or a 5xx; overflow: the copy was not made, because too many
were in flight; cancelled: it was ended because the process stops."""


class RequestCopy(NamedTuple):
    """A copy of a request that is to be sent."""

    upstream: str
    call: str
    """The name of the call or route whose request is copied, for records."""
    prepare: Callable[[], PreparedRequest | None]
    """Makes the request; None: it cannot be made of the values of the inbound request."""
    request: RequestFacts
    """The inbound request."""
    timeout: float
    """Seconds for which the copy may last."""
    max_body: int | None
    """Maximum bytes of the response's body; None: the upstream's limit. Without effect on a streamed copy."""
    mode: Literal["whole", "stream"] = "whole"
    """The mode of the call; "stream": the fields are sent as they are."""


@dataclass(frozen=True, slots=True)
class MirrorStatistics:
    """A snapshot of the copies for one upstream."""

    in_flight: int
    bytes_in_flight: int
    """Bytes of the bodies of the copies in flight."""
    results: Mapping[CopyResult, int]
    """Copies that have ended, by result."""


class _Target:
    """An upstream that gets copies, and the counts of them."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.in_flight = 0
        self.bytes_in_flight = 0
        self.results: dict[CopyResult, int] = {"ok": 0, "failed": 0, "overflow": 0, "cancelled": 0}


class Mirrors(TaskOwner):
    """Sends copies of requests. An async context manager; its exit cancels the copies in flight. See the module.

    Args:
        callers: by upstream, the caller that makes the copies. It must be usable as long as this object is entered.
        recorder: receives the records of failed and slow copies.
    """

    def __init__(self, callers: Mapping[str, Caller], recorder: Recorder) -> None:
        super().__init__(BackgroundNursery("the mirrors"))
        self._recorder = recorder
        self._targets = {name: _Target(caller) for name, caller in callers.items()}

    @property
    def callers(self) -> Mapping[str, Caller]:
        """The callers by upstream."""
        return {name: target.caller for name, target in self._targets.items()}

    def send(self, copy: RequestCopy) -> None:
        """Send a copy in a task, or count it as not made. Never waits and never raises.

        Raises:
            KeyError: ``copy.upstream`` has no caller.
        """
        target = self._targets[copy.upstream]
        if not self._nursery.running:
            target.results["cancelled"] += 1
        elif target.in_flight >= COPIES_MAX:
            target.results["overflow"] += 1
        else:
            target.in_flight += 1
            self._nursery.start_soon(self._make, target, copy)

    def statistics(self) -> Mapping[str, MirrorStatistics]:
        """A snapshot by upstream."""
        return {
            name: MirrorStatistics(target.in_flight, target.bytes_in_flight, dict(target.results))
            for name, target in self._targets.items()
        }

    async def _make(self, target: _Target, copy: RequestCopy) -> None:
        """Make a copy, and count and record its result. Raises nothing but ``Cancelled``."""
        size = 0
        result: CopyResult = "cancelled"
        try:
            await trio.lowlevel.checkpoint()
            prepared = copy.prepare()
            if prepared is None:
                result = "failed"
                return
            size = len(prepared.content or b"")
            if target.bytes_in_flight + size > BYTES_MAX:
                size, result = 0, "overflow"
                return
            target.bytes_in_flight += size
            result = await self._perform(target.caller, copy, prepared)
        except Exception as error:  # noqa: BLE001  # a bug: it must not end the process
            result = "failed"
            text, fields = f"the copy of call {copy.call} crashed", {"call": copy.call}
            self._recorder.record(LogMessage("error", "mirror.crashed", text, copy.request, fields, error))
        finally:
            target.in_flight -= 1
            target.bytes_in_flight -= size
            target.results[result] += 1

    async def _perform(self, caller: Caller, copy: RequestCopy, prepared: PreparedRequest) -> CopyResult:
        owner, started_at = SingleCallOwner(), trio.current_time()
        # The deadline of the inbound request does not hold for the copy, which begins after the answer.
        request = replace(copy.request, deadline=float("inf"))
        streamed = copy.mode == "stream"
        context = CallContext(
            owner,
            copy.call,
            copy.upstream,
            request,
            math.inf if streamed else started_at + copy.timeout,
            self._recorder,
            None if streamed else copy.timeout,
            copy.max_body,
            [],
            takes_attempts=getattr(self._recorder, "takes_attempts", True),
            stream_limits=StreamLimits(lifetime=copy.timeout) if streamed else None,
        )
        ended = await owner.perform(caller.new_call(prepared, context, copy.mode))
        if streamed and ended.error is None:
            await _drop_body(cast("StreamingCall", ended))
        failure = _failure_of(ended)
        now = trio.current_time()
        if failure is not None or now - started_at >= getattr(self._recorder, "slow_call", 0.0):
            state: Literal["value", "failed"] = "value" if failure is None else "failed"
            outcome = Outcome(copy.call, state, None, failure, started_at, now, tuple(context.attempts))
            self._recorder.record(CallEnded(copy.request, copy.upstream, outcome))
        if failure is None:
            return "ok"
        return "overflow" if failure.kind is Kind.OVERFLOW else "failed"


async def _drop_body(call: StreamingCall) -> None:
    """Receive and drop the body of a response, up to DROPPED_MAX bytes; if it breaks off, set ``call.error``."""
    size, broken = 0, None
    try:
        while size <= DROPPED_MAX and (data := await call.receive()):
            size += len(data)
    except UpstreamError as error:
        broken = error.with_traceback(None)
    finally:
        await call.aclose()
    call.error = broken


def _failure_of(ended: Call) -> Failure | None:
    """The failure that the end of a copy means; None: a whole response came, below 500."""
    error, ended.error = ended.error, None  # The traceback holds the call: keeping the error would be a cycle.
    if isinstance(error, UpstreamError):
        return Failure.from_error(error)
    if error is not None:
        return Failure.of(Kind.INTERNAL, f"{type(error).__name__}: {error}")
    status = ended.status or 0
    return Failure.of(Kind.STATUS, f"the upstream answered {status}") if status >= 500 else None
