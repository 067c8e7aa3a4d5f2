"""One inbound request on its way through the gateway: its facts, its nursery, and what became of it.

Carried in the ASGI scope of Quart's requests. Whoever composes an answer writes here what the request's one record says
of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio
from msgspec.structs import replace
from quart import has_request_context, has_websocket_context, request, websocket

from ..composition.engine import CLIENT_GONE
from ..core.errors import NotRunningError
from ..core.inbound import AnsweredByServerError, ClientGoneError
from ..logs import bind

if TYPE_CHECKING:
    from quart.wrappers import Request

    from ..core.events import Recorder
    from ..core.failure_kinds import Kind
    from ..core.inbound import InboundRequest
    from ..core.model import Outcome, RequestFacts
    from .request.client_origin import ClientOrigin


SCOPE_KEY = "umbel"
"""Where the request context stands in the ASGI scope: ``request.scope["umbel"]``."""


class RequestBody(AsyncIterable[bytes], Protocol):
    """The parts of a request's body."""

    def take_at_most(self, size: int) -> None:
        """No more than ``size`` bytes are taken: a body of unknown length need not have more time than that."""


class RequestContext:
    """What belongs to one request and lives exactly as long."""

    __slots__ = (
        "answered_by_server",
        "body",
        "body_waits",
        "calls",
        "completed",
        "detail",
        "facts",
        "inbound",
        "kind",
        "nursery",
        "of_client",
        "origin",
        "outcomes",
        "own_ms",
        "query",
        "recorder",
    )

    def __init__(self, facts: RequestFacts, origin: ClientOrigin, recorder: Recorder, query: bytes = b"") -> None:
        self.facts = facts
        self.origin = origin
        self.recorder = recorder
        self.query = query
        """The raw query."""
        self.body: RequestBody
        """The parts of the request's body; set by whoever brings it, and read once."""
        self.body_waits: Callable[[bool], object] = count_nothing
        """Called with True before the client is waited for with its body, and with False after it."""
        self.inbound: InboundRequest
        """The server's side of it. A WebSocket has none."""
        self.nursery: trio.Nursery
        """The request's own: cancelled when the client has gone, and with the request's end.

        Not there where a composition of the configuration is answered before Quart, unless it streams.
        """
        self.calls: dict[str, Outcome] = {}
        """What became of the calls that were made for it, in the order in which they ended."""
        self.outcomes: tuple[Outcome, ...] = ()
        """The same in the order of the configuration, or of the code, once there is a result."""
        self.completed: bool | None = None
        self.of_client = False
        """Whether all that a composed answer lacks is the client's own mistake."""
        self.own_ms: float | None = None
        """Milliseconds that a composed answer took beside its longest call."""
        self.kind: Kind | None = None
        self.detail = ""
        self.answered_by_server: AnsweredByServerError | None = None
        """What the server has answered in our place."""

    def bind(self) -> None:
        """From now on whatever is logged for this request, by anybody in any task of it, says so."""
        bind(**names_of(self.facts))

    def routed(self, route: str, deadline: float) -> RequestFacts:
        """Fill in what only a matched route knows; ``deadline`` is absolute."""
        self.facts = replace(self.facts, route=route, deadline=deadline)
        bind(**{"http.route": route})
        return self.facts

    def cancel(self) -> None:
        """Cancel what is at work for it: the client has gone."""
        self.nursery.cancel_scope.cancel(reason=CLIENT_GONE)

    async def next_part(self) -> bytes:
        """The next part of the body; empty at its end. If the client has gone this never returns: it is cancelled.

        Raises:
            HTTPException: the body is too large or too slow, where it is not the server that says so.
        """
        try:
            return await self.inbound.receive()
        except ClientGoneError as error:
            if isinstance(error, AnsweredByServerError):
                self.answered_by_server = error.with_traceback(None)  # Its frames hold this object.
        self.cancel()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    def became_complete(self, deadline: float, now: float) -> RequestFacts:
        """The request is complete only ``now``, after its body was waited for; its ``deadline`` is absolute."""
        self.facts = replace(self.facts, deadline=deadline, complete_at=now)
        return self.facts


def count_nothing(_: bool) -> None:
    """Where nobody counts the time."""


def names_of(facts: RequestFacts) -> dict[str, object]:
    """The fields of log records that name a request."""
    names: dict[str, object] = {"request_id": facts.request_id, "trace_id": facts.trace.trace_id}
    if facts.route:
        names["http.route"] = facts.route
    return names


def current_request() -> Request:
    """The request whose context this runs in: the object, and not Quart's proxy, which looks it up at every use."""
    found: Request = cast(Any, request)._get_current_object()
    return found


def find_request_context() -> RequestContext | None:
    """The context of the request whose context this runs in; None outside one, and in a hand-made test context."""
    if not has_request_context():
        return None
    return cast("dict[str, Any]", request.scope).get(SCOPE_KEY)


def current_request_context() -> RequestContext:
    """The context of the request whose context this runs in.

    Raises:
        NotRunningError: there is none.
    """
    ctx = find_request_context()
    if ctx is None:
        raise NotRunningError("this request did not come in through Umbel's ASGI interface")
    return ctx


def find_websocket_context() -> RequestContext | None:
    """The context of the WebSocket whose context this runs in; None outside one. It has no nursery."""
    if not has_websocket_context():
        return None
    return cast("dict[str, Any]", websocket.scope).get(SCOPE_KEY)
