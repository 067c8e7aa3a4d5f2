"""One limit for a whole call: everything below it, and the reading of the answer too.

For programs that use layers by themselves: httpx's own timeouts limit single steps, never the whole. Not in the
gateway's stack, where the composition holds the one scope of a request's deadline.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import httpx
import trio

from ..errors import UpstreamError
from ..kinds import Kind
from ..messages import extended
from .ending import LIMIT, limit_of
from .layer import Layer

CLOSE_SECONDS = 1.0
"""How long closing a response may take whose time is over."""


class CallTimedOut(UpstreamError, httpx.TimeoutException):  # noqa: N818 - named by what happened, as the others are
    """The whole call was not over within its limit. Whatever was under way has been cancelled."""

    kind = Kind.TIMEOUT


class Timeout(Layer):
    """Limits each call to ``seconds`` from its request to the last byte of its answer.

    When they have passed, everything below is cancelled, or the answer that is being read is closed, and
    ``CallTimedOut`` is raised. Outside of a ``Retry`` the limit is for all attempts together, inside of one for each.
    A cancel from outside passes as it is.

    Raises:
        ValueError: ``seconds`` is not over 0.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, *, seconds: float) -> None:
        super().__init__(transport)
        if not seconds > 0:
            raise ValueError("a limit is more than 0 seconds")
        self._seconds = seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Ask the transport below.

        Raises:
            CallTimedOut: the limit has passed; also from the response's stream.
        """
        limit = _Limit(self._seconds)
        # The layers below are told, so that a cancel at that moment counts against an upstream that hangs.
        told = extended(request, {**request.extensions, LIMIT: min(limit.deadline, limit_of(request) or math.inf)})
        with limit.scope() as scope:
            response = await self._transport.handle_async_request(told)
        if scope.cancelled_caught:
            raise limit.passed()
        if not response.is_closed and not isinstance(response.stream, httpx.ByteStream):
            response.stream = _Limited(response, limit)
        return response


class _Limit:
    """When a call must be over."""

    __slots__ = ("_seconds", "deadline")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.deadline = trio.current_time() + seconds

    def scope(self) -> trio.CancelScope:
        return trio.CancelScope(deadline=self.deadline)

    def passed(self) -> CallTimedOut:
        return CallTimedOut(f"the call was not over within its limit of {self._seconds:g} s")


class _Limited(httpx.AsyncByteStream):
    """A response's stream that ends at the limit. Its own iterator: no scope is open between two pieces."""

    __slots__ = ("_limit", "_pieces", "_stream")

    def __init__(self, response: httpx.Response, limit: _Limit) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._limit = limit
        self._pieces: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces is None:
            self._pieces = aiter(self._stream)
        with self._limit.scope():
            # Also where the next piece is there already: a slow reader's time passes too.
            await trio.lowlevel.checkpoint_if_cancelled()
            return await anext(self._pieces)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await self.aclose()
        raise self._limit.passed()

    async def aclose(self) -> None:
        pieces, self._pieces = self._pieces, None
        try:
            if (aclose := getattr(pieces, "aclose", None)) is not None:
                await aclose()
        finally:
            await self._stream.aclose()
