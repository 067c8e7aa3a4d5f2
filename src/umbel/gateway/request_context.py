"""Request context: the data of one inbound request, from its head to its access record.

The code that makes the response writes the request's results here; ``request_end.record_of`` makes the access record of
them. A request that Quart dispatches has its request context in the ASGI scope, under ``SCOPE_KEY``.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio
from msgspec.structs import replace
from quart import has_request_context, has_websocket_context, request, websocket

from ..composition.engine import CLIENT_GONE
from ..core.errors import NotRunningError
from ..core.inbound import AnsweredByServerError, ClientGoneError
from ..logs import bind
from .request.tls_extension import certificate_in

if TYPE_CHECKING:
    from quart.wrappers import Request

    from ..auth.authenticator import Place
    from ..composition.plan.plan import Copy
    from ..core.failure_kinds import Kind
    from ..core.identity import AuthResult, Identity
    from ..core.inbound import InboundRequest
    from ..core.model import Outcome, RequestFacts
    from .browsers.browser_fields import BrowserFields
    from .browsers.compression import CodedContent, Compression
    from .context import ServingState
    from .request.client_origin import ClientOrigin
    from .request.request_fields import Field


SCOPE_KEY = "umbel"
"""Key of the request context in the ASGI scope: ``request.scope["umbel"]``."""


class RequestBody(AsyncIterable[bytes], Protocol):
    """Async iterator over the parts of a request body."""

    def take_at_most(self, size: int) -> None:
        """Declare that at most ``size`` bytes of the body will be read; the server bounds the time accordingly."""


class RequestContext:
    """Data of one request: facts, origin, body, outcomes of its calls, and results for the access record.

    Args:
        facts: identifiers, route and times; replaced as more becomes known.
        origin: the client's address and the request's fields.
        serving: the state of the application; its present recorder takes the records of this request.
        query: the raw query of the request target, without tokens (``GatewayContext.visible_query``).
    """

    __slots__ = (
        "answered_by_server",
        "at_end",
        "auth",
        "body",
        "body_waits",
        "browser_fields",
        "calls",
        "coded_content",
        "completed",
        "compression",
        "copies",
        "credential",
        "detail",
        "facts",
        "handshake",
        "identity",
        "inbound",
        "kind",
        "limit",
        "limit_fields",
        "nursery",
        "of_client",
        "origin",
        "outcomes",
        "own_ms",
        "query",
        "recorder",
        "serving",
        "varies",
    )

    def __init__(self, facts: RequestFacts, origin: ClientOrigin, serving: ServingState, query: bytes = b"") -> None:
        self.facts = facts
        self.origin = origin
        self.serving = serving
        self.recorder = serving.recorder
        self.query = query
        """The raw query of the request target, without tokens."""
        self.handshake: Mapping[str, Any] | None = None
        """The ASGI scope of a WebSocket that Quart serves, which has no ``inbound``; else None."""
        self.identity: Identity | None = None
        """Who makes the request; None: its route has no ``auth``, or has not admitted it yet."""
        self.credential: Place | None = None
        """The place of the credential by which the request was admitted; None as above."""
        self.varies: tuple[str, ...] = ()
        """The header fields, in lower case, in which the route looks for credentials."""
        self.auth: AuthResult | None = None
        """What authentication has come to, for the access record; None: the route has no ``auth``."""
        self.limit = ""
        """The name of the limit that has refused the request; empty: none has."""
        self.limit_fields: Sequence[Field] = ()
        """The fields of the response about the limits of the route; empty: it has none."""
        self.body: RequestBody
        """The body, to be read once. Unset until a view or cycle sets it."""
        self.body_waits: Callable[[bool], object] = count_nothing
        """Called with True before a wait for the request body, and with False after it."""
        self.browser_fields: BrowserFields
        """What the response gets for browsers. Unset until the route is known, or known to be none."""
        self.inbound: InboundRequest
        """The inbound request. Unset for a WebSocket."""
        self.nursery: trio.Nursery
        """The nursery of the request, cancelled at the request's end and when the client leaves.

        Unset for a composition that is answered before Quart, unless it is a stream.
        """
        self.compression: Compression | None = None
        """Compresses the response; None: it is sent as it is."""
        self.coded_content: CodedContent | None = None
        """The coded forms of the constant content of a static route; None: the content is not constant."""
        self.calls: dict[str, Outcome] = {}
        """The outcomes of the request's calls by name, in the order in which the calls ended."""
        self.at_end: Callable[[], Awaitable[object]] | None = None
        """Awaited at the end of a request that Quart dispatches, whatever became of the response of its view."""
        self.copies: list[Copy] | None = None
        """The copies that mirrors get when the request is over; None: its route has no mirror."""
        self.outcomes: tuple[Outcome, ...] = ()
        """The same outcomes in the order of the configuration or code; empty until there is a result."""
        # The next five are fields of the access record (``RequestEnded``).
        self.completed: bool | None = None
        """Whether nothing is missing from a composed response; None for other responses."""
        self.of_client = False
        """Whether every failure in the response is the client's own mistake."""
        self.own_ms: float | None = None
        """The own time of a composed response in milliseconds; None for other responses."""
        self.kind: Kind | None = None
        """The kind of the failure that decided the response; None: there is none."""
        self.detail = ""
        """Why the request was refused or failed, in one sentence that clients must not see; empty: it did not."""
        self.answered_by_server: AnsweredByServerError | None = None
        """The error response that the server itself has sent; None: there is none."""

    @property
    def client_certificate(self) -> bytes | None:
        """The certificate (DER) that the peer has presented in the TLS handshake; None: there is none."""
        return self.inbound.client_certificate if self.handshake is None else certificate_in(self.handshake)

    @property
    def opens_websocket(self) -> bool:
        """Whether the request opens a WebSocket."""
        return self.handshake is not None or self.inbound.websocket

    @property
    def given_query(self) -> bytes:
        """The raw query as the client has sent it."""
        if self.handshake is not None:
            given: bytes = self.handshake["query_string"]
            return given
        return self.inbound.target.partition(b"?")[2]

    @property
    def target(self) -> bytes:
        """The request target, with ``query`` as its query: without the credentials that were cut out of it."""
        target = self.inbound.target
        path, mark, query = target.partition(b"?")
        if query == self.query:
            return target
        return path + mark + self.query if self.query else path

    def bind(self) -> None:
        """Add the request's ids to all log records of the current task and of its children."""
        bind(**self.facts.log_fields)

    def routed(self, route: str, deadline: float) -> RequestFacts:
        """Add the matched route and the deadline (``trio.current_time()``) to the facts, and return the facts.

        Log records of the current task and of its children get the route too.
        """
        self.facts = replace(self.facts, route=route, deadline=deadline)
        bind(**{"http.route": route})
        return self.facts

    def cancel(self) -> None:
        """Cancel the work for this request, because the client has left."""
        self.nursery.cancel_scope.cancel(reason=CLIENT_GONE)

    async def next_part(self) -> bytes:
        """Receive the next part of the body; ``b""`` at its end.

        If the client has left, or the server has sent an error response itself, the work for this request is cancelled,
        and this function raises ``Cancelled``.

        Raises:
            HTTPException: the body is larger than the application's MAX_CONTENT_LENGTH; or it is too slow, and the
                server has no limit of its own for that.
        """
        try:
            return await self.inbound.receive()
        except ClientGoneError as error:
            if isinstance(error, AnsweredByServerError):
                # Without its traceback, whose frames hold this object.
                self.answered_by_server = error.with_traceback(None)
        self.cancel()
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    def became_complete(self, deadline: float, now: float) -> RequestFacts:
        """Add the time at which the body was complete, and the deadline that follows from it. Return the facts.

        Both times are ``trio.current_time()``.
        """
        self.facts = replace(self.facts, deadline=deadline, complete_at=now)
        return self.facts


def count_nothing(_: bool) -> None:
    """Do nothing: the value of ``body_waits`` while no handler measures the waits."""


def current_request() -> Request:
    """Quart's current request object itself. (Quart's proxy ``request`` looks it up at each access.)"""
    found: Request = cast(Any, request)._get_current_object()
    return found


def find_request_context() -> RequestContext | None:
    """The gateway's own ``RequestContext`` of the request that Quart is handling.

    None without a request, and in ``app.test_request_context``.
    """
    if not has_request_context():
        return None
    return cast("dict[str, Any]", request.scope).get(SCOPE_KEY)


def current_request_context() -> RequestContext:
    """The gateway's own ``RequestContext`` of the request that Quart is handling.

    Raises:
        NotRunningError: no request is being handled, or it did not come through the application's ASGI interface.
    """
    ctx = find_request_context()
    if ctx is None:
        raise NotRunningError("this request did not come through the application's ASGI interface; use a test client")
    return ctx


def find_websocket_context() -> RequestContext | None:
    """The request context of Quart's current WebSocket, which has no nursery; None without one."""
    if not has_websocket_context():
        return None
    return cast("dict[str, Any]", websocket.scope).get(SCOPE_KEY)
