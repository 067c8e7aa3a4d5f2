"""A request's body as Quart's requests have it: read from the server when somebody wants it, and bounded as a whole.

Quart's own is filled by a task of its own, and not bounded as a whole: 0.22 bounds what waits to be read, 0.23 nothing
until the body is complete.
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
    """A body that is read in parts (``async for``) or as a whole (``await``), with the interface of Quart's.

    It holds at most ``max_content_length`` bytes, and nothing any more once the client has sent more than that in all:
    readers then get ``RequestEntityTooLarge``, at once where the length was known.

    Several tasks may read. One of them waits for the client, and the others wait for it; if it is cancelled, another
    one takes its place.
    """

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        self._ctx: RequestContext | None = None
        self._reading: trio.CancelScope | None = None
        """Around the task that waits for the client."""
        self._held = bytearray()
        self._received = 0
        self._limit = max_content_length
        self._ended = False
        self._news = trio.Event()
        self._error: HTTPException | None = None
        if expected_content_length is not None:
            self._bound(expected_content_length)

    def read_from(self, ctx: RequestContext) -> None:
        """The body is that of ``ctx`` (``RequestContext.next_part``)."""
        self._ctx = ctx

    async def detach(self) -> None:
        """Read nothing more from the client. A task that waits for it goes on waiting, and nothing comes any more.

        Returns when that task has let go of the connection, also where the caller is cancelled.
        """
        self._ctx = None
        if self._reading is not None:
            self._reading.cancel(reason="the request is over")
            with trio.CancelScope(shield=True):
                while self._reading is not None:
                    await self._news.wait()

    def take_at_most(self, size: int) -> None:
        """The reader takes no more than ``size`` bytes: a body of unknown length need not have more time than that."""
        if self._ctx is not None:
            self._ctx.inbound.take_at_most(size)

    def append(self, data: bytes) -> None:
        """Take a part."""
        self._received += len(data)
        self._bound(self._received)
        if self._error is None:
            self._held += data
        self._notify()

    def set_complete(self) -> None:
        """There is no further part."""
        self._ended = True
        self._notify()

    def set_result(self, data: bytes) -> None:
        """The body is this, and complete."""
        self.append(data)
        self.set_complete()

    def clear(self) -> None:
        """Drop what is held."""
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
        """Wait for the next part, for the end, or for an error."""
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
            self._notify()  # Cancelled, too: whoever waits beside is to read on.

    def _bound(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            self._error = RequestEntityTooLarge()
            self._held.clear()

    def _notify(self) -> None:
        self._news.set()
        self._news = trio.Event()


class UmbelRequest(TrioRequest):
    """Quart-Trio's request, with a body that is bounded while it comes."""

    body_class = QuartBody
    body: QuartBody
