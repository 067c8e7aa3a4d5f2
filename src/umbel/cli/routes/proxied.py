"""What a proxy route does with one request: the target, the fields that are passed on, and where else it may go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ...composition.plan.plan import Plan
from ...composition.proxy.proxy_plan import ProxyPlan
from ...composition.text.expression import ExpressionError
from ...config.schema.access.auth import Auth
from ...config.schema.access.credential_names import credential_fields, credential_names
from ...config.schema.proxy import Proxy, Rewrite, WebSocketRules
from ...config.schema.values.units import format_ratio
from ...core.errors import RequestError
from ...core.http.syntax import list_members
from ...core.model import Json
from ...core.networks import Networks
from ...gateway.access.query_tokens import without_parameters
from ...gateway.proxy.upload import check_size
from ...gateway.proxy.websocket_handshake import check_origin, rules_of
from ...gateway.request.client_origin import origin_of
from ...gateway.request.request_body import known_length
from ...gateway.request.request_fields import RequestFields
from .matching import NoMatch
from .splits import without_key

_OF_UPGRADE = (b"connection", b"upgrade")
_WRITTEN = ("via", "x-request-id", "traceparent")
_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")


@dataclass(frozen=True, slots=True)
class ProxyExplained:
    """How a request is passed on to the upstream of its route. The client is no trusted proxy."""

    upstream: str
    target: str
    """The target for the upstream, after the path of its base URL."""
    passed_on: tuple[str, ...]
    """The names of the client's fields that the upstream gets."""
    dropped: tuple[str, ...]
    """The names of the client's fields that it does not get, or gets with another value."""
    configured: tuple[str, ...]
    """The names of the fields that the configuration sets."""
    written: tuple[str, ...]
    """The names of the fields that Umbel writes."""
    others: tuple[str, ...]
    """What happens to the request at other upstreams, a few words each: fallback, split and mirror."""
    response: tuple[str, ...]
    """How fields of the response are changed, a few words each."""
    websocket: str
    """Which WebSocket connections are passed on, in words."""

    def lines(self, method: str) -> Iterator[str]:
        """Yield the explanation as lines of text."""
        yield f"{method} {self.target} to {self.upstream}"
        yield from self.others
        for words, names in (
            ("passes on", self.passed_on),
            ("drops", self.dropped),
            ("sets", self.configured),
            ("writes", self.written),
        ):
            if names:
                yield f"{words} {', '.join(names)}"
        yield from self.response
        yield f"websocket: {self.websocket}"


def explain_proxy(
    plan: Plan,
    method: str,
    target: str,
    path: Mapping[str, Any],
    context: Mapping[str, Json],
    asked: Sequence[tuple[str, str]],
    auth: Mapping[str, Auth],
    hide: Callable[[str], str],
) -> ProxyExplained | NoMatch | None:
    """Explain how a request is passed on; None: the route is no proxy route; ``NoMatch``: the request is refused.

    Args:
        plan: the plan of the route.
        method: the method of the request.
        target: the target of the request.
        path: the values of the variables of the route's path.
        context: the evaluation context of the request.
        asked: the header fields of the request.
        auth: the sections ``[auth.NAME]``. Credentials of the request are taken for valid ones.
        hide: replaces the values of environment variables in a text.
    """
    proxy = plan.proxy
    if proxy is None:
        return None
    accepted = [auth[name] for name in plan.route.auth or () if name in auth]
    pairs = [(name.lower().encode(), value.encode()) for name, value in asked]
    client = origin_of("192.0.2.1", pairs, Networks(()))
    upstream, why = _chosen(proxy, context)
    fields = RequestFields(pairs)
    upgrades = method == "GET" and _asks_for_websocket(fields)
    try:
        check_size(known_length(fields), proxy.max_body)
        if upgrades:
            check_origin(rules_of(proxy.websocket), fields.get("origin"))
        sent_to = proxy.target(_without_tokens(target, accepted), path, context, upstream)
    except RequestError as error:
        return NoMatch(error.status, error.detail)
    sent = proxy.request_fields(client.headers, context, upstream, authorized=_is_authorized(fields, accepted))
    configured = _configured(proxy.config, [field.name for field in proxy.destinations[upstream].headers])
    given = dict.fromkeys(name for name, _ in pairs)
    names = {lower for _, lower, _ in sent}.union(_OF_UPGRADE if upgrades else ())
    kept = [name for name in given if name in names and name.decode() not in configured]
    return ProxyExplained(
        upstream,
        hide(sent_to.decode("ascii")),
        tuple(name.decode() for name in kept),
        tuple(name.decode() for name in given if name not in kept),
        tuple(name for name in configured if any(lower == name.encode() for _, lower, _ in sent)),
        _WRITTEN + (_FORWARDED if proxy.destinations[upstream].forwarded else ()),
        tuple(_others(proxy.config, why)),
        tuple(map(hide, _response(proxy.config))),
        _websocket(proxy.config),
    )


def _without_tokens(target: str, accepted: Sequence[Auth]) -> bytes:
    """A target without the query parameters in which credentials may be."""
    raw = target.encode("ascii", "replace")
    path, _, query = raw.partition(b"?")
    names = {name.encode("ascii") for each in accepted for name in credential_names(each, "query")}
    kept = without_parameters(query, names)
    return raw if kept == query else path + (b"?" + kept if kept else b"")


def _is_authorized(fields: RequestFields, accepted: Sequence[Auth]) -> bool:
    """Whether a request has a token in Authorization that a section of the route would read."""
    is_bearer = (fields.get("authorization") or "").lower().startswith("bearer ")
    return is_bearer and any("authorization" in credential_fields(each) for each in accepted)


def _asks_for_websocket(fields: RequestFields) -> bool:
    """Whether a request of HTTP/1.1 with these fields opens a WebSocket, if its method is GET and it has no body."""
    asked = [list_members((fields.get(name) or "").encode()) for name in ("connection", "upgrade")]
    return b"upgrade" in asked[0] and b"websocket" in asked[1] and not known_length(fields)


def _configured(proxy: Proxy, of_upstream: Sequence[bytes]) -> tuple[str, ...]:
    rules = proxy.request_headers
    return tuple(dict.fromkeys((*(name.decode() for name in of_upstream), *rules.set_, *rules.add)))


def _chosen(proxy: ProxyPlan, context: Mapping[str, Json]) -> tuple[str, str]:
    """The upstream of a request by ``split``, and how it was chosen; the route's upstream if chance decides."""
    choice = proxy.choice
    if choice is None or choice.key is None:
        return proxy.upstream, "at random"
    with suppress(ExpressionError):
        if (key := choice.key_of(context)) is not None:
            return choice.split.choose(key, lambda: 0.0), f"by {choice.key.text}"
    return proxy.upstream, f"by {choice.key.text}: {without_key(choice.key)}"


def _others(proxy: Proxy, why: str) -> Iterator[str]:
    if proxy.split:
        shares = ", ".join(f"{format_ratio(share)} to {name}" for name, share in proxy.split.items())
        yield f"splits {shares}, {why}"
    if proxy.fallback:
        yield f"falls back to {', then '.join(proxy.fallback)}"
    if proxy.mirror is not None:
        methods = ", ".join(proxy.mirror.methods)
        yield f"mirrors {format_ratio(proxy.mirror.share)} of {methods} to {proxy.mirror.upstream}"


def _response(proxy: Proxy) -> Iterator[str]:
    rules, rewrite = proxy.response_headers, proxy.rewrite
    for words, names in (("removes", rules.remove), ("sets", tuple(rules.set_)), ("adds", tuple(rules.add))):
        if names:
            yield f"response: {words} {', '.join(names)}"
    yield from (f"response: {words}" for words in _rewriting(rewrite))


def _rewriting(rewrite: Rewrite) -> Iterator[str]:
    if not rewrite.location:
        yield "a Location stays as it is"
    for name, table in (("Domain", rewrite.cookie_domain), ("Path", rewrite.cookie_path)):
        for old, new in table.items():
            yield f"{name} {old} of cookies becomes {new or 'none'}"


def _websocket(proxy: Proxy) -> str:
    if isinstance(proxy.websocket, WebSocketRules):
        return f"passed on from {', '.join(proxy.websocket.origins)}"
    return "passed on from any origin" if proxy.websocket else "not passed on"
