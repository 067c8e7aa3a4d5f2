"""Calls through a foreign ``httpx.AsyncBaseTransport`` (the argument ``transports``)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import httpx
import trio

from ...net.exception_groups import cancel_reason, raise_cancels
from ..call import CallBase, CallContext, Caller, Mode, PreparedRequest, StreamLimits, UpgradedStream
from ..errors import UpstreamError
from ..failure_kinds import Kind
from ..http.header_field import Field
from ..http.hop_by_hop import is_hop_by_hop, named_by
from ..http.redirects import FOLLOWED, NotFollowedError, followed
from ..model import RequestFacts
from ..pieces import PIECE
from .httpx_messages import request_of, response_fields

Around = Callable[[RequestFacts], AbstractContextManager[None]]

CLOSE_SECONDS = 1.0
"""Maximum seconds for closing a response; the close is shielded from a cancel."""


class CallTimedOut(UpstreamError, httpx.TimeoutException):  # noqa: N818  # named like the other errors of calls
    """The call was not over within its own timeout."""

    kind = Kind.TIMEOUT

    @classmethod
    def after(cls, seconds: float) -> CallTimedOut:
        """Make the error of a call with a timeout of ``seconds``."""
        return cls(f"no answer within the call's limit of {seconds:g} s")


class TransportCaller:
    """Caller that makes its calls through an httpx transport.

    Args:
        transport: the transport. It must be entered before the first call, and left by its owner.
        base_url: the URL of the upstream; the target of a call is appended to its path.
        around: a function that gives a context manager for an inbound request; the request's calls run inside of it.
    """

    def __init__(
        self, transport: httpx.AsyncBaseTransport, base_url: str = "http://upstream", around: Around | None = None
    ) -> None:
        self.transport = transport
        self.around = around
        self._base = httpx.URL(base_url)
        self._path = self._base.raw_path.rstrip(b"/")

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> TransportCall:
        """Make a call, without starting it; see ``core.call.Caller``.

        Raises:
            ValueError: ``mode`` is "upgrade", which httpx does not support.
        """
        if mode == "upgrade":
            raise ValueError('a foreign httpx transport supports no calls of mode "upgrade"')
        return (TransportCall if mode == "whole" else TransportStreamCall)(self, prepared, context)

    def followed(self, prepared: PreparedRequest, status: int, fields: Sequence[Field], hops: int) -> PreparedRequest:
        """The request that follows a redirect.

        Raises:
            NotFollowedError: as ``core.http.redirects.followed``.
        """
        return followed(prepared, status, fields, self._base.scheme, self._base.netloc, self._path, hops)

    def request(self, prepared: PreparedRequest) -> httpx.Request:
        """Make the httpx request of a call."""
        url = self._base.copy_with(raw_path=self._path + prepared.target)
        body = None if prepared.body is None else _SentBody(prepared.body)
        extensions = {"target": prepared.target}
        return request_of(prepared.method, prepared.fields, prepared.content, extensions, url=url, body=body)


def caller_of(
    transport: httpx.AsyncBaseTransport | Caller, base_url: str = "http://upstream", around: Around | None = None
) -> Caller:
    """Return ``transport`` itself if it is a ``Caller`` (``umbel.upstream.Transport``), else a ``TransportCaller``."""
    # As ``isinstance`` with the protocol, which takes fifty times as long.
    return cast(Caller, transport) if hasattr(transport, "new_call") else TransportCaller(transport, base_url, around)


class TransportCall(CallBase):
    """One call through an httpx transport; see ``core.call.Call``. It always needs a task: ``start`` reports a wait."""

    __slots__ = ("_caller", "_done", "_scope", "note")

    def __init__(self, caller: TransportCaller, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(prepared, context)
        self._caller = caller
        self._scope = trio.CancelScope()
        self._done = False
        self.note = ""

    def start(self, now: float) -> None:
        """Report to the owner that the call needs a task, which runs ``finish``."""
        self.context.owner.call_waits(self)

    def send(self) -> None:
        """Do nothing: ``finish`` sends the request."""

    def cancel(self, reason: str) -> None:
        """End the call; the transport's cleanup continues within ``finish``."""
        if not self._done:
            self._done = True
            self._scope.cancel(reason=reason or None)

    async def finish(self) -> None:
        """Send the request through the transport and read the response. Raises no ``Exception``.

        The call ends itself only at its own timeout (``context.limit``); at the request's deadline the owner cancels
        it. A cancel of the task cancels the call and is raised.
        """
        context = self.context
        self._scope.deadline = context.deadline if context.limit is not None else math.inf
        error: Exception | None = None
        try:
            with self._scope:
                try:
                    # A call that is cancelled before it begins must send nothing.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    around, request = self._caller.around, context.request
                    with nullcontext() if around is None or request is None else around(request):
                        await self._ask()
                except Exception as caught:  # noqa: BLE001  # any error of a foreign transport fails the call
                    error = caught
        except Exception as caught:  # noqa: BLE001  # an error of the cleanup, in a group with the scope's own cancel
            error = caught
        except BaseException as caught:
            self.cancel(cancel_reason(caught))
            # An error of the cleanup must not reach the composition: the call has ended or is cancelled already. So
            # only the cancels are raised.
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
        hops = 0
        await self._exchange()
        while self.context.follows and self.status in FOLLOWED:
            try:
                self.prepared = self._caller.followed(self.prepared, self.status, self.fields, hops)
            except NotFollowedError as error:
                self.note = f"the redirect was not followed: {error}"
                return
            hops += 1
            await self._exchange()

    async def _exchange(self) -> None:
        """Send the request, and read the response."""
        response = await self._caller.transport.handle_async_request(self._caller.request(self.prepared))
        if not response.is_closed:
            try:
                await response.aread()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
                    await response.aclose()
        self.fields, self.content = _end_to_end(response_fields(response)), response.content
        self.status = response.status_code


class _Reason(NamedTuple):
    """A ``core.call.ResponseHead``."""

    reason: bytes
    upgrade: bytes | None = None
    """Not known."""


class TransportStreamCall(TransportCall):
    """A ``core.call.StreamingCall`` through an httpx transport. ``aclose`` must be awaited also after ``cancel``.

    The task of ``finish`` ends with the head. ``StreamLimits`` apply as in ``upstream/calls/stream_call.py``, except
    that ``idle`` does not limit sending, which the transport does. Interim responses and trailers are not known.
    """

    __slots__ = ("_began_at", "_iterator", "_received", "_response", "head", "receive_max", "trailers")

    def __init__(self, caller: TransportCaller, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(caller, prepared, context)
        self.head: _Reason | None = None
        self.trailers: Sequence[Field] = ()
        self.receive_max = PIECE
        """Without effect: the transport chooses the pieces."""
        self._began_at = 0.0
        self._response: httpx.Response | None = None
        """The response whose body is not received yet; None without one, and after the end."""
        self._iterator: AsyncIterator[bytes] | None = None
        self._received = False
        """Whether the end of the body was received."""

    def start(self, now: float) -> None:
        """Report to the owner that the call needs a task, which runs ``finish``."""
        self._began_at = now
        super().start(now)

    async def finish(self) -> None:
        """Send the request through the transport, up to the head of the response; see ``TransportCall.finish``."""
        try:
            await super().finish()
        finally:
            if self.error is not None:  # Cancelled, maybe after the head and before the report to the owner.
                await self.aclose()

    async def _ask(self) -> None:
        limits = self.context.stream_limits
        seconds = None if limits is None else min(limits.first_byte or math.inf, limits.lifetime or math.inf)
        with trio.CancelScope(deadline=math.inf if seconds is None else self._began_at + seconds) as scope:
            response = await self._caller.transport.handle_async_request(self._caller.request(self.prepared))
            stream = response.stream
            assert isinstance(stream, httpx.AsyncByteStream)
            self._response, self._iterator = response, aiter(stream)
            self.status, self.fields = response.status_code, _end_to_end(response_fields(response))
            self.head = _Reason(response.extensions.get("reason_phrase", b""))
        if self._response is None and seconds is not None and scope.cancelled_caught:
            raise CallTimedOut.after(seconds)

    @property
    def response_ended(self) -> bool:
        """Whether the end of the body was received."""
        return self._received

    async def receive(self) -> bytes:
        """Receive the next bytes of the body; see ``core.call.StreamingCall``."""
        iterator = self._iterator
        if self.error is not None:
            raise self.error
        if iterator is None or self._received:
            return b""
        limits = self.context.stream_limits or StreamLimits()
        idle = trio.current_time() + (limits.idle or math.inf)
        self._scope = trio.CancelScope(deadline=min(idle, self._began_at + (limits.lifetime or math.inf)))
        with self._scope:
            async for data in iterator:
                if data:
                    return data
            self._received = True
            return b""
        if self.error is None:
            self.error = CallTimedOut.after((limits.idle if self._scope.deadline == idle else limits.lifetime) or 0.0)
        raise self.error

    def take_rest(self) -> bytes:
        """Return nothing: received bytes stay in the transport until ``receive``."""
        return b""

    def cancel(self, reason: str) -> None:
        """End the call, and a ``receive`` that waits; ``aclose`` closes the response."""
        self._done = True
        if self.error is None and not self._received:
            self.error = httpx.ReadError(f"the call was cancelled: {reason or 'no reason given'}")
        self._scope.cancel(reason=reason or None)

    async def aclose(self) -> None:
        """Close the response, for at most CLOSE_SECONDS; see ``core.call.StreamingCall``."""
        self.cancel("the call was closed")
        response, self._response, self._iterator = self._response, None, None
        if response is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
                await response.aclose()

    def become_stream(self) -> bool:
        """Return True: a foreign transport has no limit of streams."""
        return True

    def take(self) -> UpgradedStream:
        """Refuse: httpx has no upgrades.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a foreign httpx transport supports no upgrades")


class _SentBody(httpx.AsyncByteStream):
    """``PreparedRequest.body`` as a stream of httpx."""

    def __init__(self, body: AsyncIterable[bytes]) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._body)


def _end_to_end(fields: Sequence[Field]) -> Sequence[Field]:
    """The fields that are not hop-by-hop. A foreign transport may also return hop-by-hop fields."""
    named = named_by(b",".join(value for _, lower, value in fields if lower == b"connection"))
    return [field for field in fields if field[1] not in named and not is_hop_by_hop(field[1])]
