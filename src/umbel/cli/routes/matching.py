"""Matching a request line to a route, by the gateway's own checks of paths and queries and by werkzeug's routing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect, Rule

from ...composition.plan.plan import Plan, request_context
from ...composition.proxy.any_method import ANY_METHOD
from ...composition.static_response import RedirectTemplate
from ...composition.text.template import BadValueError
from ...config.schema.sections import Route
from ...core.errors import RequestError
from ...core.http.forward_all import STAR
from ...core.http.host import is_host
from ...core.http.probe_paths import PROBES
from ...core.model import Inputs, Json
from ...gateway.request.paths import AMBIGUOUS, check_path, check_query, merged_path
from ...gateway.request.query import QueryRules
from ...gateway.request.request_fields import RequestFields
from ...gateway.response.validators import etag_of, not_modified
from ...gateway.routing.choice import Choice
from ...gateway.routing.encoded_slashes import (
    holds_encoded_slash,
    keeps_slashes,
    path_to_match,
    url_with_slashes,
    with_slashes,
)
from ...gateway.routing.host_map import MALFORMED_HOST, HostMap, methods_of, rule_for_any_method
from ...server.http1.head_errors import with_query_in_ascii

_SIMILAR = 0.4
_NEAR_MAX = 3


class Match(NamedTuple):
    """The route that matches, and the values of its path parameters."""

    route: int
    """The index of the route in the configuration."""
    values: Mapping[str, Any]
    why: tuple[str, ...] = ()
    """Why this route was chosen and not another one with the path; empty: no other one could be."""


class NoMatch(NamedTuple):
    """A request that causes no call: the gateway answers it itself, redirects it or refuses it."""

    status: int
    """The status of the response."""
    reason: str
    """Why no call is made, for people."""
    near: tuple[str, ...] = ()
    """The routes with similar paths, if no route has the path; each as ``METHODS PATH``."""


class Query(NamedTuple):
    """The parameters that a route reads from a query."""

    values: Mapping[str, Json]
    """The values of the parameters that the route declares, as far as they are given."""
    ignored: tuple[str, ...]
    """The names of given parameters that the route neither declares nor forwards."""


def read_query(plan: Plan, path: str) -> Query | NoMatch:
    """Parse the query of ``path`` as the route of ``plan`` does; return ``NoMatch`` if the route would refuse it.

    A path without ``?`` is not checked: a required parameter may be missing.
    """
    _, mark, query = path.partition("?")
    if not mark:
        return Query({}, ())
    raw = with_query_in_ascii(path.encode()).partition(b"?")[2]  # As the server reads it.
    rules = QueryRules(plan.route.query_params)
    try:
        check_query(raw)
        values = rules.values(rules.read(raw))
    except RequestError as error:
        return NoMatch(error.status, error.detail)
    given = tuple(dict.fromkeys(unquote_plus(piece.partition("=")[0]) for piece in query.split("&") if piece))
    used = {*given} if STAR in plan.forwarded_query or plan.proxy is not None else {*plan.forwarded_query}
    used |= {name.field or "" for name in (plan.match.names if plan.match is not None else ()) if name.root == "query"}
    return Query(
        {name: values[name] for name in given if name in values},
        tuple(name for name in given if name not in values and name not in used),
    )


def context_of(
    plan: Plan,
    path: Mapping[str, Any],
    query: Mapping[str, Json],
    fields: Sequence[tuple[str, str]] = (),
    client: str = "",
) -> dict[str, Json]:
    """The evaluation context of a request without a body.

    Args:
        path: the values of the path's variables.
        query: the values of the declared query parameters that are given.
        fields: the header fields.
        client: the address of the client; empty: unknown.
    """
    values = {name: value if isinstance(value, str | int | float) else str(value) for name, value in path.items()}
    defaults = {name: param.default for name, param in plan.route.query_params.items()}
    given = _request_fields(fields)
    return request_context(
        plan,
        Inputs(
            path=values,
            query={**defaults, **query},
            headers=given.end_to_end,
            cookies=given.cookies,
            client=client,
        ),
    )


def location_of(plan: Plan, context: Mapping[str, Json], raw_query: str = "") -> str | NoMatch:
    """The Location that the redirect of ``plan`` gives a request; ``NoMatch`` if it is refused.

    Empty if the route is no redirect. ``context`` is the evaluation context of the request, and ``raw_query`` its
    query.
    """
    static = plan.static
    if not isinstance(static, RedirectTemplate):
        return ""
    try:
        return static.location(context, raw_query.encode()).decode("ascii")
    except BadValueError as error:
        return NoMatch(400, str(error))


def is_not_modified(plan: Plan, method: str, fields: Sequence[tuple[str, str]]) -> bool:
    """Whether the ``respond`` of ``plan`` answers a request with 304, because its If-None-Match names the ETag."""
    static = plan.static
    if isinstance(static, RedirectTemplate) or static is None or static.status != 200 or not plan.route.answer.etag:
        return False
    asked = _request_fields(fields).by_name.get("if-none-match")
    return method in ("GET", "HEAD") and not_modified(asked, etag_of(static.content))


def map_of(plans: Sequence[Plan]) -> HostMap:
    """Return the map of the routes. An endpoint is the index of a route, of routes with a ``match`` of the first."""
    routes, groups = HostMap(), _groups(plans)
    # Of rules with the same path the first one that has the method is taken, as in ``RouteGroups.groups``.
    for index, plan in sorted(enumerate(plans), key=lambda each: each[1].methods is ANY_METHOD):
        if (group := groups.get(_key(plan), [index]))[0] == index:
            methods, path, host = methods_of(plans[each] for each in group), plan.route.path, plan.route.host
            if methods is ANY_METHOD:
                routes.add(rule_for_any_method(Rule, path, str(index), host))
            else:
                routes.add(Rule(path, endpoint=str(index), methods=methods, host=host))
    return routes


def find(plans: Sequence[Plan], method: str, path: str, fields: Sequence[tuple[str, str]] = ()) -> Match | NoMatch:
    """Return the route that matches a request, or ``NoMatch`` if there is none.

    A query in ``path`` is only read by ``match``. ``fields`` are the header fields of the request.
    """
    raw, _, query = path.partition("?")
    request = _request_fields(fields)
    host = request.get("host")
    if host and not is_host(host):
        return NoMatch(400, MALFORMED_HOST)
    if path == "*" and method == "OPTIONS":
        return NoMatch(204, "answered for the server as a whole, without any call")
    asked = with_query_in_ascii(f"/?{query}".encode()).partition(b"?")[2]
    try:
        check_path(raw.encode(), slashes=any(plan.route.encoded_slash == "keep" for plan in plans))
        check_query(asked)
    except RequestError as error:
        return NoMatch(error.status, error.detail)
    routes, groups = map_of(plans), _groups(plans)
    adapter = routes.adapter_for(routes.patterns_for(host), "localhost")
    matched = path_to_match(raw.encode())
    kept = [str(index) for index, plan in enumerate(plans) if plan.route.encoded_slash == "keep"]
    if holds_encoded_slash(raw.encode()) and not keeps_slashes(adapter, matched, method, kept):
        return NoMatch(400, AMBIGUOUS)
    if (merged := merged_path(raw.encode())) is not None:
        moved = merged + b"?" + asked if asked else merged
        return NoMatch(308, f"the client is sent to {moved.decode()}")
    try:
        endpoint, values = adapter.match(matched, method, query_args=asked.decode("ascii"))
    except RequestRedirect as error:
        moved_to = url_with_slashes(error.new_url.removeprefix("http://localhost"))
        return NoMatch(error.code, f"the client is sent to {moved_to}")
    except MethodNotAllowed as error:
        allowed = ", ".join(sorted({*(error.valid_methods or ()), "OPTIONS"}))
        if method == "OPTIONS":
            return NoMatch(204, f"answered without any call, with Allow: {allowed}")
        return NoMatch(405, f"the path is known, the method is not; allowed: {allowed}")
    except NotFound:
        if raw in PROBES:
            return NoMatch(200, "a probe, answered by the gateway itself")
        return NoMatch(404, "no route has this path", _near(plans, raw))
    values = with_slashes(values)
    alike = groups.get(_key(plans[int(endpoint)]))
    if alike is None:
        return Match(int(endpoint), values, tuple(_why(plans[int(endpoint)].route, alone=True)))
    chosen = Choice([(each, plans[each]) for each in alike]).choose(method, request, asked)
    if chosen is None:
        return NoMatch(404, "routes have this path, but the request fulfils the match of none of them")
    return Match(chosen, values, tuple(_why(plans[chosen].route, alone=False)))


def _request_fields(fields: Sequence[tuple[str, str]]) -> RequestFields:
    return RequestFields([(name.lower().encode(), value.encode()) for name, value in fields])


def _key(plan: Plan) -> tuple[str | None, str]:
    return plan.route.host, plan.route.path


def _groups(plans: Sequence[Plan]) -> Mapping[tuple[str | None, str], list[int]]:
    """The indexes of the routes by host and path, where one of them has a ``match``."""
    found: dict[tuple[str | None, str], list[int]] = {}
    for index, plan in enumerate(plans):
        found.setdefault(_key(plan), []).append(index)
    return {key: group for key, group in found.items() if any(plans[index].match is not None for index in group)}


def _why(route: Route, *, alone: bool) -> Iterator[str]:
    """Yield why a route was chosen and not another one with the path, a few words each."""
    if route.host is not None:
        yield f"the host is {route.host}"
    if route.match is not None:
        yield f"match {route.match} is fulfilled"
    elif not alone:
        yield "no match of the other routes is fulfilled"


def _near(plans: Sequence[Plan], path: str) -> tuple[str, ...]:
    routes = {plan.route.path: f"{'|'.join(plan.methods)} {plan.route.host or ''}{plan.route.path}" for plan in plans}
    found = difflib.get_close_matches(path, routes, n=_NEAR_MAX, cutoff=_SIMILAR)
    return tuple(routes[route] for route in found)
