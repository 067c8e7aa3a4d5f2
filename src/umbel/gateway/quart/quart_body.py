"""Request body for Quart's request objects: pulled from the server on demand, with a limit on the whole body.

Quart's own body class is filled by a separate task and has no limit on the whole body.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import trio
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from ...server.limits.fairness import CountedCalls

if TYPE_CHECKING:
    from ..request_context import RequestContext


class QuartBody(TrioBody, CountedCalls):
    """Request body with Quart's interface: read in parts (``async for``) or as a whole (``await``).

    Several tasks may read. One of them waits for the client, and the others wait for that task. If the waiting task is
    cancelled, another one takes its place.

    Args:
        expected_content_length: the length of the body; None: unknown.
        max_content_length: maximum bytes of the body; None: no maximum. For a longer body readers get
            ``RequestEntityTooLarge``: at once if the length is known, else when the maximum is exceeded.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self._ctx: RequestContext | None = None
        self._reading: trio.CancelScope | None = None
        """The scope of the task that waits for the client; None: no task waits."""
        self._held = bytearray()
        self._received = 0
        self._limit = max_content_length
        self._ended = False
        self._news = trio.Event()
        self._error: HTTPException | None = None
        if expected_content_length is not None:
            self._bound(expected_content_length)

    def read_from(self, ctx: RequestContext) -> None:
        """Receive the body from ``ctx`` (``RequestContext.next_part``)."""
        self._ctx = ctx

    async def detach(self) -> None:
        """Receive nothing more from the client; readers wait for ever from now on.

        Returns when no task receives from the connection any more. Shielded from a cancel.
        """
        self._ctx = None
        if self._reading is not None:
            self._reading.cancel(reason="the request is over")
            with trio.CancelScope(shield=True):
                while self._reading is not None:
                    await self._news.wait()

    def take_at_most(self, size: int) -> None:
        """Declare that at most ``size`` bytes will be read; the server bounds the time of the body accordingly."""
        if self._ctx is not None:
            self._ctx.inbound.take_at_most(size)

    def take_any_size(self) -> None:
        """Declare that the body is passed on as it comes: it may have any size, and is read with ``receive`` only."""
        self._limit, self._error = None, None
        if self._ctx is not None:
            self._ctx.inbound.take_any_size()

    async def receive(self) -> bytes:
        """The next part of the body; ``b""`` at its end. Raises as the iteration."""
        return await anext(self, b"")

    def append(self, data: bytes) -> None:
        """Add a part of the body, and wake the readers."""
        self._received += len(data)
        self._bound(self._received)
        if self._error is None:
            self._held += data
        self._notify()

    def set_complete(self) -> None:
        """End the body, and wake the readers."""
        self._ended = True
        self._notify()

    def set_result(self, data: bytes) -> None:
        """Set the whole body."""
        self.append(data)
        self.set_complete()

    def clear(self) -> None:
        """Forget the bytes that have not been read."""
        self._held.clear()

    def __aiter__(self) -> QuartBody:
        return self

    async def __anext__(self) -> bytes:
        await self.count_call()
        while not self._held and not self._ended and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        if not self._held:
            raise StopAsyncIteration
        data = bytes(self._held)
        self._held.clear()
        return data

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._whole().__await__()

    async def _whole(self) -> bytes:
        await self.count_call()
        while not self._ended and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        return bytes(self._held)

    async def _wait(self) -> None:
        """Wait for the next part, for the end, or for an error, either from the client or through another reader."""
        ctx = self._ctx
        if ctx is None or self._reading is not None:
            await self._news.wait()
            return
        ctx.body_waits(True)
        try:
            with trio.CancelScope() as self._reading:
                data = await ctx.next_part()
                if data:
                    self.append(data)
                else:
                    self._ended = True
        except HTTPException as error:
            self._error = error
            self._held.clear()
        finally:
            self._reading = None
            ctx.body_waits(False)
            self._notify()  # Also after a cancel: another reader must take the place of this one.

    def _bound(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            self._error = RequestEntityTooLarge()
            self._held.clear()

    def _notify(self) -> None:
        self._news.set()
        self._news = trio.Event()


class UmbelRequest(TrioRequest):
    """Quart-Trio's request with a ``QuartBody``."""

    body_class = QuartBody
    body: QuartBody

    async def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Quart's ``get_json``, for which a body that is no UTF-8 (or has a content coding) is malformed JSON too.

        Raises:
            BadRequest: the body is malformed, unless ``silent``.
        """
        try:
            return await super().get_json(force, silent, cache)
        except UnicodeDecodeError as error:
            return None if silent else self.on_json_loading_failed(error)
