"""An upload: what a request counts as while the server waits for its body.

A request begins as one in flight. It becomes an upload where its application waits for the body and the client has
still to send some of it. Once the body is complete, the request is in flight again. So slow clients take
``max_uploads`` slots and none of ``max_in_flight``.

* An upload without a slot waits for one in the order of coming, for ``head_timeout``. Its body is not read meanwhile.
* A request whose body is not read, or is there already, takes no slot. A small body that comes while its request waits
  is read without one.
* A request with a complete body must be admitted again, like a request that has just come. A request whose response has
  begun before that stays an upload to its end: it cannot be refused any more.
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
"""Bytes of a body that may be read while its request waits for a slot."""

_IN_FLIGHT, _WAITING, _UPLOADING, _NEEDS_NONE = range(4)


class Upload:
    """The state of one request with a body, made while it is in flight, before the first wait for the body."""

    __slots__ = ("_at", "_server", "_until")

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._at = _IN_FLIGHT
        self._until = math.inf

    async def begin(self, all_has_come: Callable[[], Awaitable[object]] | None) -> ErrorResponse | None:
        """Take an upload slot, so that the client may be waited for; an error response if there is none.

        ``all_has_come``, where it is given, returns if the whole of a small body comes while this waits for a slot.
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
        """Count the request, whose body is complete, in flight again; an error response if it is not admitted."""
        if self._at is _IN_FLIGHT:
            return None
        if (error_response := self._server.check_capacity()) is not None:
            return error_response
        self._leave()
        self._at = _IN_FLIGHT
        self._server.in_flight += 1
        return None

    def end(self) -> None:
        """The request is over."""
        if self._at is _IN_FLIGHT:
            self._server.request_ended()
        else:
            self._leave()
            self._server.note_progress()
        self._at = _NEEDS_NONE

    def _leave(self) -> None:
        if self._at is _UPLOADING:
            self._server.uploads.give_back()
            if not self._server.uploads.taken:
                self._server.uploads_ended()
