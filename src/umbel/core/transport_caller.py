"""Calls through any ``httpx.AsyncBaseTransport``, as given by ``transports=``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import httpx
import trio

from ..net.exception_groups import cancel_reason, raise_cancels
from .call import CallBase, CallContext, Caller, Mode, PreparedRequest
from .errors import UpstreamError
from .failure_kinds import Kind
from .http.header_field import Field
from .http.hop_by_hop import is_hop_by_hop, named_by
from .httpx_messages import request_of, response_fields
from .model import RequestFacts

Around = Callable[[RequestFacts], AbstractContextManager[None]]

CLOSE_SECONDS = 1.0
"""Seconds that closing a response may take when nobody waits for it any more."""


class CallTimedOut(UpstreamError, httpx.TimeoutException):  # noqa: N818  # named by what happened, as the others are
    """The call was not over within its own limit."""

    kind = Kind.TIMEOUT

    @classmethod
    def after(cls, seconds: float) -> CallTimedOut:
        """The error of a call whose limit was so many seconds."""
        return cls(f"no answer within the call's limit of {seconds:g} s")


class TransportCaller:
    """Caller that makes its calls through ``transport``, which must be entered and left by its owner.

    Args:
        base_url: where the requests go: the upstream's URL. A call's target comes behind its path.
        around: what a call is made inside of, for the inbound request that it belongs to.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport, base_url: str = "http://upstream", around: Around | None = None
    ) -> None:
        self.transport = transport
        self.around = around
        self._base = httpx.URL(base_url)
        self._path = self._base.raw_path.rstrip(b"/")

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> TransportCall:
        """See ``core.call.Caller``. There are only whole responses."""
        if mode != "whole":
            raise ValueError("a foreign transport makes whole calls only")
        return TransportCall(self, prepared, context)

    def request(self, prepared: PreparedRequest) -> httpx.Request:
        """The request as the transport sees it."""
        url = self._base.copy_with(raw_path=self._path + prepared.target)
        return request_of(prepared.method, prepared.fields, prepared.content, {"target": prepared.target}, url=url)


def caller_of(
    transport: httpx.AsyncBaseTransport | Caller, base_url: str = "http://upstream", around: Around | None = None
) -> Caller:
    """A caller for ``transport``: itself, if it is one (``umbel.upstream.Transport``)."""
    return transport if isinstance(transport, Caller) else TransportCaller(transport, base_url, around)


class TransportCall(CallBase):
    """One call through a transport: it always needs a task. See ``core.call.Call``."""

    __slots__ = ("_caller", "_done", "_scope")

    def __init__(self, caller: TransportCaller, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(prepared, context)
        self._caller = caller
        self._scope = trio.CancelScope()
        self._done = False

    def start(self, now: float) -> None:
        """See ``core.call.Call``."""
        self.context.owner.call_waits(self)

    def send(self) -> None:
        """See ``core.call.Call``."""

    def cancel(self, reason: str) -> None:
        """See ``core.call.Call``. The transport's own cleaning up goes on inside of ``finish``."""
        if not self._done:
            self._done = True
            self._scope.cancel(reason=reason or None)

    async def finish(self) -> None:
        """Ask the transport, and read its response."""
        context = self.context
        self._scope.deadline = context.deadline if context.limit is not None else math.inf
        error: Exception | None = None
        try:
            with self._scope:
                try:
                    # Cancelled before it began, it must not ask at all.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    around, request = self._caller.around, context.request
                    with nullcontext() if around is None or request is None else around(request):
                        await self._ask()
                except Exception as caught:  # noqa: BLE001  # of a foreign transport, or a bug: it is the call's end
                    error = caught
        except Exception as caught:  # noqa: BLE001  # what cleaning up raised beside the cancel that the scope took
            error = caught
        except BaseException as caught:  # only what cleaning up raised is left out
            self.cancel(cancel_reason(caught))
            # A failure of cleaning up must not end the composition: the call has ended, or is cancelled.
            raise_cancels(caught)
            raise
        if self._done:
            return
        self._done = True
        if self._scope.cancelled_caught and context.limit is not None:
            error = CallTimedOut.after(context.limit)
        if error is not None:
            self.error, self.status = error, None
        self.ended_at = trio.current_time()
        context.owner.call_ended(self)

    async def _ask(self) -> None:
        response = await self._caller.transport.handle_async_request(self._caller.request(self.prepared))
        if not response.is_closed:
            try:
                await response.aread()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
                    await response.aclose()
        self.fields, self.content = _end_to_end(response_fields(response)), response.content
        self.status = response.status_code


def _end_to_end(fields: Sequence[Field]) -> Sequence[Field]:
    """The fields that are not of the connection. A foreign transport may show all of them."""
    named = named_by(b",".join(value for _, lower, value in fields if lower == b"connection"))
    return [field for field in fields if field[1] not in named and not is_hop_by_hop(field[1])]
