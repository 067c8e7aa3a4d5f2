"""Upload: the state of a request while the server waits for its body.

A request begins in flight. When its application waits for body bytes that have not come, it becomes an upload. When the
body is complete, it is in flight again. So slow clients use up ``max_uploads`` and not ``max_in_flight``.

* An upload needs a slot. It waits for one in the order of arrival, for at most ``head_timeout``, and its body is not
  read in that time.
* A request whose body is not read, or has come already, needs no slot. Nor does a small body that is complete before
  the request gets a slot.
* A request with a complete body must be admitted again, like a new one, and may be refused. If its response has begun,
  it cannot be refused, so it stays an upload to its end.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio
from trio_util import move_on_when

from ..response.error_response import NO_UPLOAD_LEFT, ErrorResponse

if TYPE_CHECKING:
    from ..state import ServerState

SMALL_BODY = 16 * 1024
"""Bytes of the largest body that is read while its request waits for a slot."""

_IN_FLIGHT, _WAITING, _UPLOADING, _NEEDS_NONE = range(4)


class Upload:
    """Counts one request with a body: as in flight, or as an upload while the server waits for its body.

    Made before the first wait for the body, while the request is in flight.
    """

    __slots__ = ("_at", "_server", "_until")

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._at = _IN_FLIGHT
        self._until = math.inf

    async def begin(self, all_has_come: Callable[[], Awaitable[object]] | None) -> ErrorResponse | None:
        """Make the request an upload: it is no longer in flight, and waits for a slot if it needs one and has none.

        Returns None if the server may wait for the body now. Returns a 503 if no slot was free within ``head_timeout``
        of the first call, or if too many requests wait already. A cancel leaves the request without a slot; ``end``
        must still be called.

        Args:
            all_has_come: an async function that returns when the whole of a small body has come; the request then
                needs no slot. None: the body is not small.
        """
        server, slots = self._server, self._server.uploads
        if self._at is _IN_FLIGHT:
            server.in_flight -= 1
            self._at = _WAITING
            self._until = trio.current_time() + server.limits.head_timeout
        if self._at is not _WAITING:
            return None
        if slots.take_now():
            self._at = _UPLOADING
            return None
        if slots.full:
            return NO_UPLOAD_LEFT
        with trio.CancelScope(deadline=self._until):
            if all_has_come is None:
                await slots.take()
                self._at = _UPLOADING
            else:
                async with move_on_when(all_has_come) as come:
                    await slots.take()
                    self._at = _UPLOADING
                if come.cancelled_caught:
                    self._at = _NEEDS_NONE
        return NO_UPLOAD_LEFT if self._at is _WAITING else None

    def complete(self) -> ErrorResponse | None:
        """Count the request, whose body is complete, in flight again. Return None, or a 503 if it is not admitted."""
        if self._at is _IN_FLIGHT:
            return None
        if (error_response := self._server.check_capacity()) is not None:
            return error_response
        self._leave()
        self._at = _IN_FLIGHT
        self._server.in_flight += 1
        return None

    def end(self) -> None:
        """Count the request out at its end."""
        if self._at is _IN_FLIGHT:
            self._server.request_ended()
        else:
            self._leave()
            self._server.note_progress()
        self._at = _NEEDS_NONE

    def _leave(self) -> None:
        """Give the slot back, if the request has one."""
        if self._at is _UPLOADING:
            self._server.uploads.give_back()
            if not self._server.uploads.taken:
                self._server.uploads_ended()
