"""Plan of a proxy route: the request to the upstream, and the fields of the response to the client. Pure.

Theory
------
**The target.** Without a template the upstream gets the client's path and query byte for byte, after the path of its
base URL. With a template, the path is made of values of the client's path. A value ``{name}`` is one encoded segment.
A value ``{+name}`` is the end of the client's path as the client has sent it, if the variable ``<path:name>`` is the
end of the route's path, so that no character is encoded in another way than before. The gateway has refused a path with
dot segments, backslashes and (unless the route keeps them) encoded slashes. This plan refuses two more things that an
upstream could read in another way: an empty segment in a value, and a dot segment with a parameter (``..;x``), which
some servers take for a dot segment.

The query of the template and the upstream's ``params`` go before the client's query, and replace parameters of the same
names. Without both, the client's query is not looked at.

**Request fields.** All fields of the client but those of ``_DROPPED``, those about the connection, and those that Umbel
writes itself: the gateway's fields (``gateway_fields``) and the trace. The upstream's configured fields replace those
of the same names, then the route's rules apply. A configured name is dropped from the client's fields even if its
template gives no value, so that no client can send a value that only the configuration may set.

**Response fields.** All fields but those about the connection, after ``rewrite`` and the route's rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

from ...config.schema.proxy import Proxy
from ...config.schema.traffic import Mirror
from ...core.errors import RequestError
from ...core.http.header_field import Field
from ...core.http.hop_by_hop import is_hop_by_hop
from ...core.model import Json
from ...core.web_origins import WebOrigins
from ...net.bounded_cache import BoundedCache
from ..answer.cache_control import is_targeted, to_private
from ..request.forward import without_cookies
from ..request.never_sent import OF_ATTEMPT
from ..request.request_template import GATEWAY_FIELDS_ALWAYS, GATEWAY_FIELDS_FORWARDED, Param, RequestField
from ..request.upstream_choice import UpstreamChoice
from ..text.expression import ExpressionError
from ..text.field_template import OnLeftOut, ignore_left_out
from ..text.template import BadValueError, TargetTemplate, Variable, check_segments, encoded_segment, query_pairs
from .field_changes import FieldChanges, end_to_end, expanded, named_by_connection, without
from .response_rewrite import UNMOVED, Base, CookieRewrite, Moved, rewritten_location

_DROPPED = frozenset({b"expect", b"proxy", b"proxy-status", b"x-forwarded-client-cert"})
"""Fields of clients that no upstream gets: Expect is answered by the server; ``Proxy`` would become the environment
variable HTTP_PROXY of a CGI program ("httpoxy"); a client certificate is what the gateway says, never the client."""
_ABOUT_CLIENT = frozenset({b"forwarded", b"remote-addr", b"x-real-ip"})
"""Fields of trusted proxies about the client, beside X-Forwarded-*, that need ``forwarded = true``."""
_ORIGIN = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_DOT_SEGMENT = re.compile(rb"/(?:\.|%2[eE]){1,2}(?:;|%3[bB]|/|\Z)")
_SCALARS = (str, int, float, bool)
_NAMES_MAX, _NAME_SIZE = 256, 64
"""Bounds of the names in ``Destination._passed``: their number, and the bytes of the longest."""
_NOTHING: Mapping[str, Json] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Destination:
    """What an upstream of a proxy route adds to requests, and its names in responses."""

    headers: tuple[RequestField, ...] = ()
    params: tuple[Param, ...] = ()
    forwarded: bool = True
    """Whether the upstream gets X-Forwarded-*."""
    deadline_header: bytes | None = None
    """The field, in lower case, by which calls tell the upstream their time. A client's own one is dropped."""
    bases: tuple[Base, ...] = ()
    withheld: frozenset[bytes] = frozenset()
    """The fields of API keys, in lower case, with hyphens for underscores."""
    _passed: BoundedCache[bytes, bool] = field(
        default_factory=lambda: BoundedCache(_NAMES_MAX, _NAME_SIZE), init=False, repr=False, compare=False
    )
    """Whether the client's field of a name (in lower case) is passed on, for names that clients have sent."""

    def passes(self, name: bytes) -> bool:
        """Whether the client's field of this name (in lower case) is passed on, if Connection does not name it."""
        passed = self._passed.get(name)
        if passed is None:
            hyphened = name.replace(b"_", b"-")
            passed = not (is_hop_by_hop(hyphened) or self.drops(hyphened))
            self._passed.add(name, passed)
        return passed

    def drops(self, name: bytes) -> bool:
        """Whether the client's field of this name (in lower case, with hyphens for underscores) is dropped."""
        if name in GATEWAY_FIELDS_ALWAYS or name in OF_ATTEMPT or name in _DROPPED or name in self.withheld:
            return True
        if name == self.deadline_header:
            return True
        if self.forwarded:
            return name in GATEWAY_FIELDS_FORWARDED
        return name.startswith(b"x-forwarded-") or name in _ABOUT_CLIENT


@dataclass(frozen=True, slots=True)
class WebSocketPlan:
    """Which WebSocket connections a proxy route passes on."""

    origins: WebOrigins | None
    """The origins whose pages may connect; None: all."""

    def allows(self, origin: str | None) -> bool:
        """Whether a handshake with this value of Origin is passed on; None: it has no Origin, so no browser sent it."""
        return origin is None or self.origins is None or self.origins.allow(origin)


@dataclass(frozen=True, slots=True)
class ProxyPlan:
    """The compiled ``proxy`` of a route. Holds nothing of any request.

    Functions with ``upstream`` take the name of the upstream that the request goes to; None: the route's upstream.
    ``context`` is the evaluation context of the request (``request_context``), needed only if ``reads_request``.
    """

    config: Proxy
    destinations: Mapping[str, Destination]
    """What is particular about each upstream that may answer, by name."""
    template: TargetTemplate | None
    """The path and query for the upstream; None: those of the client."""
    ends_with_rest: bool
    """Whether the route's path ends with ``/<path:name>``."""
    request_changes: FieldChanges
    response_changes: FieldChanges
    cookies: CookieRewrite
    websocket: WebSocketPlan | None
    """The rules of WebSocket connections; None: they are not passed on."""
    vary: tuple[str, ...] = ()
    """The names for Vary of the response: request fields by which the route was chosen, or which its templates read."""
    reads_request: bool = False
    """Whether a template or an expression reads the request, so that the functions need ``context``."""
    choice: UpstreamChoice | None = None
    """The choice of the upstream by ``split``; None: it is ``upstream`` for every request."""
    is_private: bool = False
    """Whether the response depends on the client's address or identity, so that no shared cache may store it."""
    token_cookies: frozenset[bytes] = frozenset()
    """The cookies that no upstream gets, because they hold tokens for the gateway."""
    reads_bearer: bool = False
    """Whether the route looks for tokens in Authorization. Then no token there is for the upstream."""
    upstream: str = field(init=False)
    fallback: tuple[str, ...] = field(init=False)
    first_byte: float | None = field(init=False)
    """Seconds; None: no limit. So for the next two."""
    idle_timeout: float | None = field(init=False)
    max_lifetime: float | None = field(init=False)
    max_body: int | None = field(init=False)
    """The most bytes of a request body; None: no limit."""
    forward_credentials: bool = field(init=False)
    preserve_host: bool = field(init=False)
    mirror: Mirror | None = field(init=False)
    _taken: frozenset[str] = field(init=False)
    """The query parameters of the template, which replace those of the client."""

    def __post_init__(self) -> None:
        """Copy the values of the configuration that every request needs, with None for "off"."""
        config = self.config
        for name in ("upstream", "fallback", "forward_credentials", "preserve_host", "mirror"):
            object.__setattr__(self, name, getattr(config, name))
        for name in ("first_byte", "idle_timeout", "max_lifetime", "max_body"):
            value = getattr(config, name)
            object.__setattr__(self, name, None if value == "off" else value)
        pieces = self.template.query if self.template is not None else ()
        names = (unquote_plus(each.partition("=")[0]) if isinstance(each, str) else each.name for each in pieces)
        object.__setattr__(self, "_taken", frozenset(names))

    def target(
        self,
        raw_target: bytes,
        path: Mapping[str, Any],
        context: Mapping[str, Json] = _NOTHING,
        upstream: str | None = None,
    ) -> bytes:
        """The target for the upstream, relative to its base URL.

        Args:
            raw_target: the client's request target, whose path the gateway has checked (``check_path``).
            path: the values of the variables of the route's path.
            context: see the class.
            upstream: see the class.

        Raises:
            RequestError: 400, a value cannot be sent in its place.
        """
        raw_path, mark, query = _split(raw_target)
        if _DOT_SEGMENT.search(raw_path):
            raise RequestError(400, "The path holds a dot segment.")
        params = self._destination(upstream).params
        if self.template is None and not params:
            return raw_path + mark + query
        try:
            new, pairs = self._expanded(raw_path, path)
            for name, expression, client_parameter in params:
                pairs += query_pairs(name, expression.evaluate(context), client_parameter=client_parameter)
        except BadValueError as error:
            where = error.client_parameter or "a value"
            raise RequestError(400, f"{where[:1].upper()}{where[1:]} {error.reason}.") from error
        except ExpressionError as error:
            raise RequestError(400, "A value of the request does not fit into the query for the upstream.") from error
        own = "&".join(pairs).encode("ascii")
        if taken := self._taken.union(param.name for param in params):
            query = _without_parameters(query, taken)
        query = b"&".join(filter(None, (own, query)))
        return new + b"?" + query if query else new

    def request_fields(
        self,
        fields: Sequence[tuple[bytes, bytes]],
        context: Mapping[str, Json] = _NOTHING,
        upstream: str | None = None,
        left_out: OnLeftOut = ignore_left_out,
        *,
        authorized: bool = False,
    ) -> list[Field]:
        """The fields of the request to the upstream, without those of the gateway and of the attempt.

        Content-Length is among them as the client has sent it, Host only with ``preserve_host``.

        Args:
            fields: the client's fields without the claims of an untrusted peer (``ClientOrigin.headers``).
            context: see the class.
            upstream: see the class.
            left_out: gets each configured field that is left out because of its value.
            authorized: whether the route has let the request in by its Authorization, which is then for the gateway
                (unless ``forward_credentials``).
        """
        destination = self._destination(upstream)
        named = named_by_connection(fields)
        kept: list[Field] = []
        cookies: list[bytes] = []
        for name, value in fields:
            lower = name.lower()
            if lower in named or not destination.passes(lower):
                continue
            if lower == b"cookie":
                kept_cookies = without_cookies(value, self.token_cookies) if self.token_cookies else value
                if kept_cookies or kept_cookies == value:
                    cookies.append(kept_cookies)
            elif lower == b"authorization" and not self.forward_credentials and self._is_own(value, authorized):
                continue
            elif lower != b"host" or self.preserve_host:
                kept.append((name, lower, value))
        if cookies:  # HTTP/2 clients may send one field for each cookie (RFC 9113 section 8.2.3).
            kept.append((b"cookie", b"cookie", b"; ".join(cookies)))
        if destination.headers:
            kept = without(kept, {each.name for each in destination.headers})
            kept += expanded(destination.headers, context, left_out)
        return self.request_changes.apply(kept, context, left_out)

    def _is_own(self, authorization: bytes, authorized: bool) -> bool:
        """Whether an Authorization is for the gateway. A token may be, also one that was not looked at."""
        return authorized or (self.reads_bearer and authorization[:7].lower() == b"bearer ")

    def response_fields(
        self,
        fields: Sequence[Field],
        raw_target: bytes,
        path: Mapping[str, Any],
        context: Mapping[str, Json] = _NOTHING,
        upstream: str | None = None,
        left_out: OnLeftOut = ignore_left_out,
        host: str | None = None,
    ) -> list[tuple[bytes, bytes]]:
        """The fields of the response to the client, with names in lower case, before ``[headers]`` and CORS.

        Args:
            fields: the fields as received from the upstream.
            raw_target: the client's request target.
            path: the values of the variables of the route's path.
            context: see the class.
            upstream: the upstream that has sent the response; see the class.
            left_out: gets each configured field that is left out because of its value.
            host: the host that the client has asked for. With ``preserve_host`` the upstream calls itself so.
        """
        kept = end_to_end(fields)
        if self.config.rewrite.location:
            kept = [
                (name, lower, self._location(value, raw_target, path, upstream, host)) if lower == b"location" else each
                for each in kept
                for name, lower, value in (each,)
            ]
        if self.cookies.domains or self.cookies.paths:
            kept = [
                (name, lower, self.cookies.rewritten(value)) if lower == b"set-cookie" else (name, lower, value)
                for name, lower, value in kept
            ]
        if self.is_private:
            kept = _made_private(kept)
        if self.vary:
            kept.append((b"vary", b"vary", ", ".join(each.title() for each in self.vary).encode("ascii")))
        return [(lower, value) for _, lower, value in self.response_changes.apply(kept, context, left_out)]

    def trailer_fields(self, fields: Sequence[Field]) -> list[tuple[bytes, bytes]]:
        """The fields of a trailer, or of an interim response, for the client."""
        dropped = self.response_changes.dropped
        return [(lower, value) for _, lower, value in end_to_end(fields) if lower not in dropped]

    def _destination(self, upstream: str | None) -> Destination:
        return self.destinations[upstream or self.upstream]

    def _expanded(self, raw_path: bytes, path: Mapping[str, Any]) -> tuple[bytes, list[str]]:
        """The path for the upstream, and the parts of the template's query.

        Raises:
            BadValueError: a value cannot be sent in its place.
        """
        if self.template is None:
            return raw_path, []
        context = {"path": {name: v if isinstance(v, _SCALARS) else str(v) for name, v in path.items()}}
        new = b""
        for part in self.template.path:
            if isinstance(part, str):
                new += part.encode("ascii")
                continue
            value = part.value(context, {})
            if rest := self._rest(raw_path, part, value):
                check_segments(part, value.split("/"))
                new += rest
            else:
                new += encoded_segment(part, value).encode("ascii")
        return new, self.template.expand_query(context, {})

    def _rest(self, raw_path: bytes, variable: Variable, value: Json) -> bytes:
        """The end of the client's path that is the value of a variable; empty: the path does not end with it."""
        if not (self.ends_with_rest and variable.keeps_slashes and isinstance(value, str)):
            return b""
        rest = b"/".join(raw_path.rsplit(b"/", value.count("/") + 1)[1:])
        return rest if unquote_to_bytes(rest) == value.encode("utf-8", "surrogatepass") else b""

    def _location(
        self, location: bytes, raw_target: bytes, path: Mapping[str, Any], upstream: str | None, host: str | None
    ) -> bytes:
        moved = UNMOVED if self.template is None else self._moved(_split(raw_target)[0], path)
        bases = self._destination(upstream).bases
        if self.preserve_host and host is not None and host.isascii():
            paths = {base.path.decode("ascii") for base in bases}
            bases = (*bases, *(Base.of(scheme, host, path) for path in paths for scheme in ("http", "https")))
        return rewritten_location(location, bases, moved)

    def _moved(self, raw_path: bytes, path: Mapping[str, Any]) -> Moved | None:
        """How the template has changed the beginning of the path; None: not only the beginning."""
        last = self.template.path[-1] if self.template is not None else ""
        if not isinstance(last, Variable) or not (rest := self._rest(raw_path, last, path.get(last.fields[0]))):
            return None
        new = self._expanded(raw_path, path)[0]
        return Moved(new[: -len(rest)].rstrip(b"/"), raw_path[: -len(rest)].rstrip(b"/"))


def _split(raw_target: bytes) -> tuple[bytes, bytes, bytes]:
    """The path in origin form, the question mark or nothing, and the query of a request target."""
    path, mark, query = raw_target.partition(b"?")
    if not path.startswith(b"/") and (origin := _ORIGIN.match(path)) is not None:
        path = path[origin.end() :] or b"/"
    return path, mark, query


def _made_private(fields: Sequence[Field]) -> list[Field]:
    """The fields of a response that no shared cache may store."""
    said = b", ".join(value for _, lower, value in fields if lower == b"cache-control")
    kept = [each for each in fields if each[1] != b"cache-control" and not is_targeted(each[1])]
    return [*kept, (b"cache-control", b"cache-control", to_private(said.decode("latin-1")).encode("latin-1"))]


def _without_parameters(query: bytes, names: frozenset[str]) -> bytes:
    """The query without the parameters that have one of ``names``; the others stay byte for byte."""
    return b"&".join(pair for pair in query.split(b"&") if pair and _name(pair) not in names)


def _name(pair: bytes) -> str:
    name = pair.partition(b"=")[0]
    return unquote_to_bytes(name.replace(b"+", b" ")).decode("utf-8", "replace")
