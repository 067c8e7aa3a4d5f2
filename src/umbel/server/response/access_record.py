"""The one access record of a request, made from the application's record and the server's own response.

An application that keeps records files one when it is done with a request. The server passes the record on when the
request is over, because only then is it known what the client got. Where the server has answered itself (the
application failed before its first byte, broke a rule, or was cut by a shutdown), the record has the status and the
request id of that response. An application that files nothing gets a record of such requests alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ...core.events import Recorder, RequestEnded
from ...core.failure_kinds import Kind
from ...net.exception_groups import holds_only
from ..limits.fairness import NO_SLOTS
from .error_response import ErrorResponse, ServerResponse, new_request_id

if TYPE_CHECKING:
    from ..state import ServerState

CRASHED = ErrorResponse(500, "The request failed inside the application.", Kind.INTERNAL)
STOPPING = ErrorResponse(503, "The server is stopping, and the request was not answered in time.", Kind.CANCELLED)
LAST_RESPONSE_S = 1.0
"""Seconds that a client gets to take a last response from a server whose grace is over."""
_ABOUT_S = 0.5
"""Stock Hypercorn cancels what is in flight by a clock of its own, which begins a moment before ours."""
CUT_DETAIL = "the answer was cut in its middle"
RECORD = "umbel.record"
"""The key in ``scope["extensions"]`` of a WebSocket under which a ``RecordedRequest`` takes the application's record.

Its ``end_reason`` is what to cancel the application with that is notified of the end.
"""


class RecordedRequest:
    """A base of whatever stands for one request before its application."""

    __slots__ = NO_SLOTS
    server_response: ServerResponse | None = None
    """What the server has answered itself."""
    refused_unseen = False
    """Whether the server has refused it before its application has seen it, though its task had begun."""
    crash_recorded = False
    """Set by an application that has recorded why its response ends in the middle, so that the server does not."""
    ended_at = 0.0
    """When the application says that it was done, in ``trio.current_time()``; 0 where it says nothing."""
    filed: tuple[Recorder, RequestEnded] | None = None
    """The application's record, until it is recorded."""

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Take an application's record of this request, for ``recorder`` to have at the request's end."""
        self.record_filed()  # An application that calls two others has a record of either.
        self.filed = recorder, ended

    @property
    def request_id(self) -> str:
        """The id that the application has given to the request; a new one where it says none."""
        return new_request_id() if self.filed is None else self.filed[1].request.request_id

    def record_filed(self) -> bool:
        """Record what was filed, corrected by ``server_response``; False if there is nothing."""
        if self.filed is None:
            return False
        (recorder, ended), self.filed = self.filed, None
        self.ended_at = ended.ended_at
        if self.server_response is not None:
            ended = corrected(ended, self.server_response)
        recorder.record(ended)
        return True


def corrected(ended: RequestEnded, response: ServerResponse) -> RequestEnded:
    """An application's record of a request that the server has answered in the application's place."""
    error_response, request_id, sent, _ = response
    return replace(
        ended,
        request=replace(ended.request, request_id=request_id),
        status=error_response.status,
        ended_at=trio.current_time(),
        bytes_sent=sent,
        completed=None,
        kind=error_response.kind,
        detail=error_response.detail,
    )


def cut_response(status: int, bytes_sent: int, rest: BaseException | None) -> ServerResponse:
    """What is recorded of a response that ended in its middle, because its application failed or (``rest``) was cut."""
    kind = Kind.INTERNAL if rest is None else Kind.CANCELLED
    return ServerResponse(ErrorResponse(status, CUT_DETAIL, kind), new_request_id(), bytes_sent)


def error_response_for(server: ServerState, rest: BaseException | None) -> ErrorResponse | None:
    """The response to a client whose request ended before the first byte of its response; None if it gets none.

    ``rest`` is what goes on upwards (``exception_groups.apart``); None: the application has failed.
    """
    if rest is None:
        return CRASHED
    # Who gives a second signal wants the end at once; and cut_at is infinite before a drain.
    grace_is_over = trio.current_time() >= server.cut_at - _ABOUT_S
    return STOPPING if grace_is_over and holds_only(rest, trio.Cancelled) else None
