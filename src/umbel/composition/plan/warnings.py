"""Warnings about routes: configurations that are valid and probably do not do what was meant.

``umbel check`` prints the warnings. A configuration with warnings is served.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...config.schema.access.auth import JwtAuth
from ...config.schema.access.credential_names import credential_fields
from ...config.schema.sections import Call, Config, KeyPath, Route
from ...core.http.forward_all import STAR
from ..answer.cache_control import allows_shared
from ..stream import fits_stream_head
from .claim_warnings import missing_claim_warnings
from .compiler import compile_routes
from .null_warnings import missing_part_warnings
from .plan import Plan

_OF_A_CONNECTION = {407: "Proxy-Authenticate", 426: "Upgrade"}
"""The statuses that need a hop-by-hop field, with the name of that field. Hop-by-hop fields are never forwarded."""

_OF_COMPOSITIONS = {
    "deadline": "its times are first_byte, idle_timeout and max_lifetime of proxy",
    "max_body": "write max_body of proxy",
    "body": "bodies are passed on as they are",
    "compress": "responses are passed on in the coding that the upstream has chosen",
}
"""The keys of a route that are about compositions, each with what holds in a proxy route."""
_OF_CALLS = {
    "timeout": "the times of a proxied request are first_byte, idle_timeout and max_lifetime of proxy",
    "max_body": "responses of any size are passed on",
    "coalesce": "each request is passed on by itself",
    "redirects": "redirects are passed on",
    "user_agent": "the client's is passed on; write it into request_headers of proxy, or into headers of the upstream",
    "deadline_header": "a proxied request has no deadline; only the client's field of this name is left out",
}
"""The keys of an upstream that are about calls, each with what holds for proxied requests."""


def warn(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of a key and its warning, for each warning. ``config`` must have passed ``compiler.check``."""
    found: dict[tuple[KeyPath, str], None] = {}
    plans = compile_routes(config)
    for plan in plans:
        found.update(dict.fromkeys(missing_part_warnings(plan)))
    yield from found
    for index, (route, plan) in enumerate(zip(config.routes, plans, strict=True)):
        shares = allows_shared(route.answer.cache_control) and not route.stream
        for at, reason in (
            *(_shared_cookies(route, plan) if shares else ()),
            *(_lost_in_stream(route, plan) if route.stream else ()),
            *_without_effect(config, route),
            *((("allow",), reason) for reason in missing_claim_warnings(config, plan)),
            *_repeatable_parameters(plan),
            *_mirrors_without_copies(plan),
            *_open_redirects(plan),
        ):
            yield ("routes", index, *at), reason
    yield from _without_calls(config)


def _without_calls(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each key about calls of an upstream that proxy routes use and no call does.

    Not for a key of ``[defaults.upstream]`` that an upstream with calls inherits too.
    """
    called: set[str] = set()
    proxied: set[str] = set()
    for section in config.auth.values():
        if isinstance(section, JwtAuth):
            called.update(issuer.jwks.upstream for issuer in section.issuers if issuer.jwks is not None)
    for route in config.routes:
        for each in route.calls.values():
            called.update(each.upstreams, () if each.mirror is None else (each.mirror.upstream,))
        if route.proxy is not None:
            mirror = route.proxy.mirror
            proxied.update(route.proxy.destinations, () if mirror is None else (mirror.upstream,))
    for name in sorted(proxied - called):
        upstream = config.upstreams[name]
        for key, reason in _OF_CALLS.items():
            value = getattr(upstream, key)
            if key not in upstream.model_fields_set or value in (None, False, "fail"):
                continue
            if key == "user_agent" and upstream.health is not None:
                continue
            place = config.where(("upstreams", name, key))
            if all(config.where(("upstreams", other, key)) != place for other in called & config.upstreams.keys()):
                yield ("upstreams", name, key), f"has no effect: only proxy routes use {name}, and {reason}"


def _shared_cookies(route: Route, plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning if a ``cache_control`` for shared caches stands at an answer that is for one client."""
    at = ("answer", "cache_control")
    if route.answer.forward_cookies:
        calls = ", ".join(route.answer.forward_cookies)
        yield (
            at,
            f"the answer forwards cookies ({calls}); an answer that sets a cookie is always sent as private",
        )
    if plan.private:
        yield (
            at,
            "the answer depends on the client's cookies, authorization or address, and this value lets shared caches"
            ' give it to other clients; write "private", or "parts"',
        )


def _lost_in_stream(route: Route, plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each key of an answer that has no effect in a stream."""
    answer = route.answer
    early = "the head of a stream is sent before the calls have ended"
    for key in ("forward_headers", "forward_cookies"):
        for call in getattr(answer, key):
            yield ("answer", key, call), f"{early}, so this works only if the route fails before its first line"
    for name, text in plan.answer_headers:
        if not fits_stream_head(text):
            yield ("answer", "headers", name), f"{early}, so this field, which reads a call, is left out"
    if answer.cache_control not in ("parts", "no-store"):
        yield ("answer", "cache_control"), "a stream is always sent with no-store"


def _repeatable_parameters(plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each call that forwards a query parameter that it sets too."""
    for call in plan.calls:
        forwarded = call.config.forward_query
        own = [name for name in call.request_template.query_names if STAR in forwarded or name in forwarded]
        if own:
            yield (
                ("calls", call.name, "forward_query"),
                f'also sends a "{own[0]}" of the client after the one that this call sets, and some upstreams use the'
                " last one; name the parameters to forward, without those of the call",
            )


def _mirrors_without_copies(plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each mirror that copies nothing, because of the method of its call."""
    for call in plan.calls:
        mirror, method = call.config.mirror, call.request_template.method
        if mirror is not None and call.config.respond is None and method not in mirror.methods:
            yield (
                ("calls", call.name, "mirror"),
                f"has no effect: the call is a {method}; write {method} into methods, if it may be made twice",
            )


def _open_redirects(plan: Plan) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each field of the answer that sends the client to a host that a value of the client names."""
    for name, text in plan.answer_headers:
        if text.leads_to_client_host:
            yield (
                ("answer", "headers", name),
                "a value of the client's request can name any host here, so a link can send clients to another site;"
                ' begin with "/" or with a scheme and a host',
            )


def _without_effect(config: Config, route: Route) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each key that has no effect beside another key, or that needs another key."""
    if route.krakend_compat and route.expose == "none":
        yield ("krakend_compat",), 'expose = "none" leaves X-KrakenD-Completed out'
    if route.answer.status == 206:
        yield ("answer", "status"), "a 206 needs Content-Range, which this answer does not have; write another status"
    if route.respond is not None and route.respond.status == 401 and "www-authenticate" not in route.respond.headers:
        yield ("respond", "status"), "a 401 needs www-authenticate (RFC 9110), which headers does not have"
    for name, call in route.calls.items():
        for key, reason in _of_call(call):
            yield ("calls", name, key), reason
    if route.proxy is not None:
        for key, reason in _OF_COMPOSITIONS.items():
            if key in route.model_fields_set and (key != "compress" or route.compress):
                yield (key,), f"has no effect in a proxy route: {reason}"
        read = {
            field for name in route.auth or () if name in config.auth for field in credential_fields(config.auth[name])
        }
        if route.proxy.forward_credentials and "authorization" not in read:
            yield (
                ("proxy", "forward_credentials"),
                "has no effect: no section in auth of the route reads Authorization, so it is passed on anyway",
            )


def _of_call(call: Call) -> Iterator[tuple[str, str]]:
    for key, taken in (("ok", call.ok), ("null_on", call.null_on)):
        if both := set(taken).intersection(call.pass_status or ()):
            yield "pass_status", f"{min(both)} stands in {key} too, so it is no failure and is never passed on"
    if call.redirects == "follow" and call.coalesce:
        yield "coalesce", "has no effect: a call that follows redirects is never coalesced"
    for status, field in _OF_A_CONNECTION.items():
        if status in (call.pass_status or ()):
            yield "pass_status", f"a {status} needs {field}, which belongs to one connection and is never forwarded"
    if call.respond is not None:
        for key in ("retry", "hedge", "coalesce", "redirects", "split", "mirror"):
            if getattr(call, key) not in (None, {}) and (key != "redirects" or call.redirects == "follow"):
                yield key, "has no effect beside respond, since nothing is sent"
    if call.pass_body and call.pass_status is not None and not call.pass_status:
        yield "pass_body", "no status is passed on (pass_status is empty), so no body is passed on"
    if call.forward_cookies and "cookie" in call.forward_headers:
        chosen = "all" if STAR in call.forward_cookies else ", ".join(call.forward_cookies)
        yield "forward_headers", f'"cookie" has no effect beside forward_cookies, which chooses the cookies: {chosen}'
