"""Place of a request: the limit in which the request counts (``max_in_flight``, ``max_uploads`` or ``max_streams``).

Theory
------
A request begins in flight. When its application waits for body bytes that have not come, it becomes an upload. When the
body is complete, it is in flight again. So slow clients use up ``max_uploads`` and not ``max_in_flight``. A request
whose application calls ``became_stream`` is a stream to its end. So responses that last for hours use up
``max_streams``, and not ``max_in_flight``.

``RequestPlace`` exists only for a request that has left ``max_in_flight`` at least once. Its states::

    IN_FLIGHT --begin_upload--> WAITING --a free slot--> UPLOADING --complete--> IN_FLIGHT
                                   '--all of a small body has come--> UNCOUNTED --complete--> IN_FLIGHT
    all of these --become_stream--> STREAM
    all of these, STREAM --end--> ENDED

* An upload needs a slot. It waits for one in the order of arrival, for at most ``head_timeout``, and its body is not
  read in that time.
* A request whose body is not read, or has come already, needs no slot. Nor does a small body that is complete before
  the request gets a slot, nor the body of a stream.
* A request with a complete body must be admitted again, like a new one, and may be refused. If its response has begun,
  or if its body was passed on (``take_any_size``), it cannot be refused: without capacity it stays an upload to its
  end.
* A stream never changes its state again before its end: nobody can take the response back.

**Invariant.** In each state the request counts in exactly one counter of the server (UNCOUNTED, ENDED: in none), and
the transition that leaves the state gives it back. ``become_stream`` may come while another task of the application
waits in ``begin_upload``. It cancels that wait; a slot that was granted in the same turn goes back.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from trio_util import move_on_when

from ..phase import Phase
from ..response.error_response import NO_UPLOAD_LEFT, ErrorResponse
from .fairness import NO_SLOTS

if TYPE_CHECKING:
    from ..state import ServerState

SMALL_BODY = 16 * 1024
"""Bytes of the largest body that is read while its request waits for a slot."""

_IN_FLIGHT, _WAITING, _UPLOADING, _UNCOUNTED, _STREAM, _ENDED = range(6)


class RequestPlace:
    """Counts one request: as in flight, as an upload or as a stream; see the module.

    Made while the request is in flight.
    """

    __slots__ = ("_at", "_server", "_until", "_wait")

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._at = _IN_FLIGHT
        self._until = math.inf
        self._wait: trio.CancelScope | None = None
        """The scope of the wait for a slot."""

    @property
    def is_stream(self) -> bool:
        """Whether the request counts as a stream."""
        return self._at == _STREAM

    async def begin_upload(self, all_has_come: Callable[[], Awaitable[object]] | None) -> ErrorResponse | None:
        """Make the request an upload: it is no longer in flight, and waits for a slot if it needs one and has none.

        Returns None if the server may wait for the body now. Returns a 503 if no slot was free within ``head_timeout``
        of the first call, or if too many requests wait already. A cancel leaves the request without a slot; ``end``
        must still be called.

        Args:
            all_has_come: an async function that returns when the whole of a small body has come; the request then
                needs no slot. None: the body is not small.
        """
        server, slots = self._server, self._server.uploads
        if self._at == _IN_FLIGHT:
            server.in_flight -= 1
            self._at = _WAITING
            self._until = trio.current_time() + server.limits.head_timeout
        if self._at != _WAITING:
            return None
        if slots.take_now():
            self._at = _UPLOADING
            return None
        if slots.full:
            return NO_UPLOAD_LEFT
        with trio.CancelScope(deadline=self._until) as self._wait:
            if all_has_come is None:
                await self._take_slot()
            else:
                async with move_on_when(all_has_come) as come:
                    await self._take_slot()
                if come.cancelled_caught and self._at == _WAITING:
                    self._at = _UNCOUNTED
        return NO_UPLOAD_LEFT if self._at == _WAITING else None

    async def _take_slot(self) -> None:
        """Wait for a slot. Without a wait after it: a slot in a state other than UPLOADING would be lost."""
        slots = self._server.uploads
        await slots.take()
        if self._at == _WAITING:
            self._at = _UPLOADING
        else:
            slots.give_back()  # The request became a stream in this turn.

    def complete(self) -> ErrorResponse | None:
        """Count the request, whose body is complete, in flight again. Return None, or a 503 if it is not admitted.

        A stream stays one.
        """
        if self._at in (_IN_FLIGHT, _STREAM, _ENDED):
            return None
        if (error_response := self._server.check_capacity()) is not None:
            return error_response
        self._leave_upload()
        self._at = _IN_FLIGHT
        self._server.in_flight += 1
        return None

    def become_stream(self) -> bool:
        """Count the request as a stream from now on. Return False, without a change, if ``max_streams`` are open."""
        if self._at == _STREAM:
            return True
        if self._at == _ENDED or not self._server.stream_began():
            return False
        before, self._at = self._at, _STREAM
        if before == _IN_FLIGHT:
            self._server.request_ended()
        elif before == _UPLOADING:
            self._give_slot_back()
        elif before == _WAITING and self._wait is not None:
            self._wait.cancel(reason="the request became a stream, which needs no upload slot")
        return True

    def end(self) -> None:
        """Count the request out at its end. A second call does nothing."""
        before = self._at
        if before == _IN_FLIGHT:
            self._server.request_ended()
        elif before == _STREAM:
            self._server.stream_ended()
        else:
            self._leave_upload()
            self._server.note_progress()
        self._at = _ENDED

    def _leave_upload(self) -> None:
        """Give the slot back, if the request has one."""
        if self._at == _UPLOADING:
            self._give_slot_back()

    def _give_slot_back(self) -> None:
        self._server.uploads.give_back()
        if not self._server.uploads.taken:
            self._server.uploads_ended()


class CountedRequest:
    """Base of the classes that stand for one request: its place, and its notice of a drain."""

    __slots__ = NO_SLOTS
    server: ServerState
    gone: bool
    response_complete: bool
    place: RequestPlace | None = None
    """Made when the request first leaves ``max_in_flight``; None while it counts as in flight only."""
    switched_at: float | None = None
    """When the request was taken (``take``), on trio's clock; None: it was not."""

    def own_place(self) -> RequestPlace:
        """The place of the request, made if there is none yet. The request must not be counted out."""
        if self.place is None:
            self.place = RequestPlace(self.server)
        return self.place

    def became_stream(self) -> bool:
        """Count the request as a stream from now on; see ``InboundRequest``."""
        if self.place is None and (self.gone or self.response_complete):
            return False  # It may be counted out already.
        if not self.own_place().become_stream():
            return False
        if self.server.reserve.requests:  # A stream takes none of the reserve, so no newer probe may displace it.
            self.server.reserve.leave(self)
        return True

    def on_drain(self, callback: Callable[[], object] | None) -> None:
        """Have ``callback()`` called once when the server begins to drain; see ``InboundRequest``."""
        server = self.server
        if callback is None:
            server.on_drain.pop(self, None)
        elif server.phase.value >= Phase.DRAINING:
            callback()
        else:
            server.on_drain[self] = callback
