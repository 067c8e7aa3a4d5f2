"""Origins from which a request with a token in a cookie may come (OWASP, "Cross-Site Request Forgery Prevention").

A browser sends a cookie with requests of any page, so the cookie alone does not show that the user wants the request.
Browsers say in Origin, or in Sec-Fetch-Site (W3C Fetch Metadata), which page has made a request, and no page can forge
these fields. Requests that change nothing are admitted without them: those with a safe method, unless the route answers
them by calls with unsafe methods. CORS decides who reads the response. WebSockets are not subject to CORS, so their
handshakes need an origin too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..request_context import RequestContext

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""The safe methods (RFC 9110 section 9.2.1)."""
_OWN_SITES = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site: a page of the same origin, or no page (the user's own doing)."""
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class AllowedOrigins(Protocol):
    """Some allowed origins."""

    def allow(self, origin: str) -> bool:
        """Whether ``origin``, the value of the field Origin, is allowed."""
        ...


class TrustedOrigins:
    """The origins that one route trusts: the gateway's own, and those that its rules name. Holds no data of a request.

    Args:
        of_pages: the origins of CORS with credentials; None: none.
        of_websockets: the origins whose pages may open WebSockets; None: none.
        changes: whether also a request with a safe method may change something.
    """

    def __init__(
        self,
        of_pages: AllowedOrigins | None = None,
        of_websockets: AllowedOrigins | None = None,
        *,
        changes: bool = False,
    ) -> None:
        self._changes = changes
        self._of_pages = of_pages
        self._of_websockets = of_websockets

    def admit(self, ctx: RequestContext) -> bool:
        """Whether a request with a token in a cookie comes from a trusted page, or changes nothing."""
        websocket = ctx.opens_websocket
        if ctx.facts.method in SAFE and not (websocket or self._changes):
            return True
        fields = ctx.origin.fields.by_name
        origin = fields.get("origin")
        if origin is None:
            return fields.get("sec-fetch-site") in _OWN_SITES
        if origin == _own_origin(ctx) or (self._of_pages is not None and self._of_pages.allow(origin)):
            return True
        return websocket and self._of_websockets is not None and self._of_websockets.allow(origin)


def _own_origin(ctx: RequestContext) -> str | None:
    """The origin of the gateway as the client sees it; None: the request names no host."""
    scheme, host = ctx.origin.scheme, ctx.origin.host
    if host is None:
        return None
    return f"{scheme}://{host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, ':'))}"
