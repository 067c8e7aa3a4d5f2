"""The access record of a request, from the application's record and the server's own response.

An application that keeps records files one when it is done with a request. The server writes it at the end of the
request, because only then is it known what the client got. If the server sent an error response in the application's
place, the record is corrected by the status and the request id of that response. For an application that files nothing,
the server writes a record only of its own error responses, and of responses that ended early. There is never more than
one record of a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ...core.events import Recorder, RequestEnded
from ...core.failure_kinds import Kind
from ...core.http.client_head import client_head
from ...core.inbound import Field
from ...net.exception_groups import holds_only
from ..limits.fairness import NO_SLOTS
from .error_response import ErrorResponse, ServerResponse, new_request_id

if TYPE_CHECKING:
    from ..state import ServerState

CRASHED = ErrorResponse(500, "The request failed inside the application.", Kind.INTERNAL)
STOPPING = ErrorResponse(503, "The server is stopping, and the request was not answered in time.", Kind.CANCELLED)
LAST_RESPONSE_S = 1.0
"""Seconds for sending a last response after ``cut_at``."""
_ABOUT_S = 0.5
"""Seconds by which a cancel may come before ``cut_at`` and still count as the end of a drain: Hypercorn's own clock
begins a moment earlier."""
CUT_DETAIL = "the response was cut off before its end"
RECORD = "umbel.record"
"""The key in the ``scope["extensions"]`` of a WebSocket. The value is its ``WebSocketSession``.

``session.file`` takes the application's record. ``session.end_reason`` is the reason with which an application cancels
its own tasks when ``receive`` gives it the disconnect.
"""


class RecordedRequest:
    """Base of the classes that stand for one request: it keeps the application's record until the request's end."""

    __slots__ = NO_SLOTS
    version: str
    fields: tuple[Field, ...]
    server_response: ServerResponse | None = None
    """The error response that the server has sent in the application's place."""
    refused_unseen = False
    """Whether the server refused the request before the application saw it, though its task had begun."""
    crash_recorded = False
    """Set by an application whose own record says why its response is incomplete: the server writes none then."""
    ended_at = 0.0
    """When the application's record says that the request ended (trio's clock); 0 without a record."""
    filed: tuple[Recorder, RequestEnded] | None = None
    """The application's record, until it is written."""

    def file_record(self, recorder: Recorder, ended: RequestEnded) -> None:
        """Keep an application's record of this request; ``recorder`` takes it at the request's end."""
        if self.filed is not None:
            self.record_filed()  # An application that calls two others gets a record of each.
        self.filed = recorder, ended

    @property
    def request_id(self) -> str:
        """The request id in the application's record; without a record a new one."""
        return new_request_id() if self.filed is None else self.filed[1].request.request_id

    def record_filed(self) -> bool:
        """Write the filed record, corrected by ``server_response``. Return False if there is none."""
        if self.filed is None:
            return False
        (recorder, ended), self.filed = self.filed, None
        self.ended_at = ended.ended_at
        if self.server_response is not None:
            ended = corrected(ended, self.server_response)
        if getattr(recorder, "takes_heads", False):
            ended = replace(ended, head=client_head(self.version, self.fields))
        recorder.record(ended)
        return True


def corrected(ended: RequestEnded, response: ServerResponse) -> RequestEnded:
    """A copy of the application's record ``ended``, corrected by the error response that the server sent in its place.

    Status, request id, size, kind and detail are those of the error response. ``completed`` is None, and the end is
    now. All else stays.
    """
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
    """What the record says of a response that ended early. ``rest``: the cancel that ended it; None: a failure."""
    kind = Kind.INTERNAL if rest is None else Kind.CANCELLED
    return ServerResponse(ErrorResponse(status, CUT_DETAIL, kind), new_request_id(), bytes_sent)


def error_response_for(server: ServerState, rest: BaseException | None) -> ErrorResponse | None:
    """The error response to a request that ended without a byte of a response; None: the connection just ends.

    ``rest``: the cancel or the like that is raised next; None: the application has failed (500). A cancel gets 503 only
    at the end of a drain.
    """
    if rest is None:
        return CRASHED
    # Before cut_at the cancel comes from a second signal, which asks for the end at once, or from no drain at all.
    grace_is_over = trio.current_time() >= server.cut_at - _ABOUT_S
    return STOPPING if grace_is_over and holds_only(rest, trio.Cancelled) else None
