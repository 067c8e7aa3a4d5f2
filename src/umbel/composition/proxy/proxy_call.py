"""The call of a proxied request: one streaming call, from its start to the end of the response's body.

Theory
------
**Problem.** A proxy route passes one request on and its response back, while both are under way. The call has the
policies, records and counters of every other call (``core/call.py``), but its response is received piece by piece, and
its outcome is known only at the end of the body.

**States.** NEW → ``begin`` → STARTED → head or error → ``receive`` until the end → ENDED. ``cut`` leads from each state
to ENDED. ``_settle`` alone sets ENDED: it makes the one ``Outcome`` and records it.

**A client that leaves.** The server calls ``client_gone`` synchronously. The upstream's connection is closed in the
same step, and whoever waits in ``begin`` or ``receive`` gets ``ClientGoneError``.

**Cancellation.** A cancel in ``begin`` or ``receive`` cancels the call, settles it and propagates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import trio

from ...core.call import Call, CallContext, SingleCallOwner
from ...core.errors import RequestError, UpstreamError
from ...core.events import CallEnded
from ...core.failure_kinds import Kind
from ...core.inbound import ClientGoneError
from ...core.model import Failure, Outcome
from ...net.exception_groups import cancel_reason
from ..call_record import is_recorded
from ..call_result import failure_of
from ..engine import CLIENT_GONE

if TYPE_CHECKING:
    from ...core.call import Caller, Mode, PreparedRequest, StreamingCall, StreamLimits
    from ...core.events import Recorder
    from ...core.http.header_field import Field
    from ...core.model import RequestFacts

OnInterim = Callable[[int, Sequence["Field"]], object]
"""Takes status and fields of an interim response of the upstream. Must not raise or wait."""


class ProxyCall(SingleCallOwner):
    """The call of a proxied request; see the module.

    Args:
        upstream: the name of the upstream, which is the name of the call too.
        caller: makes the call.
        prepared: the request of the call.
        mode: "stream", or "upgrade" if the response may be 101.
        limits: the time limits of the call.
        facts: facts of the inbound request.
        recorder: takes the records.
        on_interim: takes the interim responses.
        hold_interim: whether they are held back until the head, because another upstream may get the request.
    """

    __slots__ = ("_answered_at", "_facts", "_reason", "_recorder", "_started_at", "_stream", "outcome", "upstream")

    def __init__(
        self,
        upstream: str,
        caller: Caller,
        prepared: PreparedRequest,
        mode: Mode,
        limits: StreamLimits,
        facts: RequestFacts,
        recorder: Recorder,
        on_interim: OnInterim,
        *,
        hold_interim: bool = False,
    ) -> None:
        super().__init__()
        self._facts, self._recorder = facts, recorder
        self.upstream = upstream
        """The name of the upstream."""
        self._started_at = 0.0
        self._answered_at: float | None = None
        """When the head of the response came; None: it has not."""
        self._reason = ""
        """Why the call was cut; empty: it was not."""
        self.outcome: Outcome | None = None
        """The outcome of the call; None before its end."""
        context = CallContext(
            self,
            upstream,
            upstream,
            facts,
            recorder=recorder,
            attempts=[],
            takes_attempts=getattr(recorder, "takes_attempts", True),
            on_interim=on_interim,
            hold_interim=hold_interim,
            stream_limits=limits,
        )
        # Not ``isinstance``: to compare an object with a protocol costs as much as the rest of the call.
        self._stream: StreamingCall | None = cast("StreamingCall", caller.new_call(prepared, context, mode))

    @property
    def response(self) -> StreamingCall:
        """The call, which has the head of the response after ``begin``. Not to be used after ``aclose``."""
        assert self._stream is not None
        return self._stream

    async def begin(self) -> Failure | None:
        """Start the call, and wait for the head of its response. Return the failure if there is none.

        Raises:
            ClientGoneError: the client has left, or the server has sent an error response because of the body.
            RequestError: the request's body is refused.
        """
        self._started_at = trio.current_time()
        call: Call = self.response
        try:
            await self.perform(call)
        except BaseException as error:
            self._settle_cut(cancel_reason(error))
            raise
        failed, call.error = call.error, None
        self._raise_error_of_request(failed)
        if failed is None:
            self._answered_at = trio.current_time()
            return None
        failure = failure_of(failed, self.response.context)
        self._settle(failure)
        return failure

    async def receive(self) -> bytes:
        """Receive the next bytes of the response's body; empty at its end. Cancelled, it cuts the call.

        Raises:
            ClientGoneError: the client has left, or the server has ended the exchange because of the request's body.
            RequestError: the rest of the request's body is refused.
            BrokenResponseError: the response broke off.
        """
        try:
            data = await self.response.receive()
        except Exception as error:  # noqa: BLE001  # an upstream's error, an error of the request's body, or a bug
            self._raise_error_of_request(error)
            failure = failure_of(error, self.response.context)
            self._settle(failure)
            raise BrokenResponseError(failure) from None
        except BaseException as error:
            self._settle_cut(cancel_reason(error))
            raise
        if not data:
            self._settle(None)
        return data

    def _raise_error_of_request(self, error: Exception | None) -> None:
        """Raise ``error`` if it is one of the request's body; or ``ClientGoneError`` if the client has left."""
        if isinstance(error, ClientGoneError | RequestError):
            gone = isinstance(error, ClientGoneError)
            kind = Kind.CLIENT_GONE if gone else Kind.BAD_REQUEST
            self._settle(Failure.of(kind, "the body of the request broke off" if gone else "the body is refused"))
            raise error
        if self._reason == CLIENT_GONE:
            raise ClientGoneError("the client has gone")

    def client_gone(self) -> None:
        """Cut the call because the client has left. A callback of ``InboundRequest.on_gone``."""
        self.cut(CLIENT_GONE)

    def cut(self, reason: str) -> None:
        """End the call at once, and close its connection. Does nothing if the call has ended."""
        if self.outcome is not None:
            return
        self._reason = reason
        self.response.cancel(reason)
        self._settle_cut(reason)
        self.call_ended(self.response)  # Wakes the task of ``begin``.

    def end(self, error: Exception | None) -> None:
        """Settle the call after its connection was taken over and closed; ``error``: why it had to end, if it had."""
        self._settle(Failure.from_error(error) if isinstance(error, UpstreamError) else None)

    def refuse(self, failure: Failure) -> None:
        """End the call at once with ``failure``: its response cannot be passed on."""
        self.response.cancel(failure.detail)
        self._settle(failure)  # After the end of the attempt, which the outcome holds.

    async def aclose(self) -> None:
        """End the call, in any state. Waits at most a second for the sender of the request's body."""
        if self._stream is None:
            return
        whole = self._stream.response_ended
        try:
            await self._stream.aclose()
        finally:  # After the end of the attempt, which the outcome holds.
            self._settle(None if whole else Failure.of(Kind.CANCELLED, "the rest of the response was given up"))
            self._stream = None  # It refers to its owner, this object: a cycle would wait for the garbage collector.

    def _settle_cut(self, reason: str) -> None:
        """Make the outcome of a call that was cut for ``reason``."""
        gone = reason == CLIENT_GONE
        kind = Kind.CLIENT_GONE if gone else Kind.CANCELLED
        why = f"cancelled: {reason or 'no reason given'}"
        self._settle(Failure.of(kind, "the client has gone" if gone else why))

    def _settle(self, failure: Failure | None) -> None:
        """Make the outcome and record it, once."""
        if self.outcome is not None:
            return
        context = self.response.context
        self.outcome = outcome = Outcome(
            context.call,
            "value" if failure is None else "failed",
            None,
            failure,
            self._started_at,
            trio.current_time(),
            tuple(context.attempts),
            upstream=context.upstream,
        )
        if is_recorded(outcome, getattr(self._recorder, "slow_call", 0.0), self._answered_at):
            self._recorder.record(CallEnded(self._facts, context.upstream, outcome))


class BrokenResponseError(Exception):
    """The response of an upstream broke off after its head."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure
