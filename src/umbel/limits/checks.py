"""Checks of ``[limits.NAME]`` and of the keys of routes about it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from werkzeug.routing import Map, Rule

from ..composition.plan.scope import IDENTITY_MEMBERS
from ..composition.text.expression import Expression, ExpressionError
from ..composition.text.fault import FIRST_ONLY, SAME_VALUE
from ..config.loading.errors.did_you_mean import suggestion
from ..config.schema.sections import PUBLIC, Config, KeyPath, Limit, Route
from ..core.http.hop_by_hop import is_hop_by_hop
from .limit_expression import ROOTS, compiled

_SINGLE = {"headers": "headers.x_tenant", "query": "query.tenant", "cookies": "cookies.session"}
"""The roots of which an expression names one member, with an example."""
_TEXTS_OF_AUTH = (["auth", "sub"], ["auth", "kind"], ["auth", "name"])


def check(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the mistakes as key path and reason. For the argument ``checks`` of ``load``."""
    for name, section in config.limits.items():
        for key, text in _texts(section):
            reason = mistake(text, ("limits", name, key))
            if key == "cost":
                reason = reason or _mistaken_cost(text, section.burst)
            if reason:
                yield ("limits", name, key), reason
    if config.has_lost(("limits",), config.limits):
        return
    yield from _server_mistakes(config)
    yield from _upstream_mistakes(config)
    for index, route in enumerate(config.routes):
        for place, name in enumerate(route.limits):
            at: KeyPath = ("routes", index, "limits", *((place,) if len(route.limits) > 1 else ()))
            if name not in config.limits:
                yield at, _unknown(config, name)
            elif name in config.server.limits:
                yield (
                    at,
                    f'"{name}" is in limits of [server] already; a request would spend twice what it costs; remove one',
                )
            elif name in route.limits[:place]:
                yield at, f'"{name}" is named twice; a request would spend twice what it costs; remove one'
            elif not _has_identity(route) and needs_identity(config.limits[name]):
                yield at, f'"{name}" reads auth, but the route has no auth, such as auth = ["users"]'


def _server_mistakes(config: Config) -> Iterator[tuple[KeyPath, str]]:
    names = config.server.limits
    for place, name in enumerate(names):
        at: KeyPath = ("server", "limits", *((place,) if len(names) > 1 else ()))
        if name not in config.limits:
            yield at, _unknown(config, name)
        elif name in names[:place]:
            yield at, f'"{name}" is named twice; a request would spend twice what it costs; remove one'
        elif read := sorted(_roots(config.limits[name]) & {"auth", "path"}):
            yield at, f'"{name}" reads {read[0]}, which is not known before the route; name it in limits of routes'


def _upstream_mistakes(config: Config) -> Iterator[tuple[KeyPath, str]]:
    has_auth = bool(config.auth) or config.has_lost(("auth",), config.auth)
    for upstream, section in config.upstreams.items():
        names = section.limits
        for place, name in enumerate(names):
            at: KeyPath = ("upstreams", upstream, "limits", *((place,) if len(names) > 1 else ()))
            if name not in config.limits:
                yield at, _unknown(config, name)
            elif name in names[:place]:
                yield at, f'"{name}" is named twice; a call would spend twice what it costs; remove one'
            elif name in config.server.limits:
                yield (
                    at,
                    f'"{name}" is in limits of [server] too; a request and its calls would both spend; remove one',
                )
            elif (index := _route_with(config, upstream, name)) is not None:
                yield (
                    at,
                    f'"{name}" is in limits of routes[{index}] too, which calls this upstream; a request and its calls'
                    " would both spend; remove one",
                )
            elif not has_auth and needs_identity(config.limits[name]):
                yield at, f'"{name}" reads auth, which no request has: the configuration has no section [auth.NAME]'


def _route_with(config: Config, upstream: str, name: str) -> int | None:
    """The first route that has the limit and calls the upstream."""
    found = (i for i, route in enumerate(config.routes) if name in route.limits and upstream in upstreams_of(route))
    return next(found, None)


def upstreams_of(route: Route) -> frozenset[str]:
    """The upstreams that may get a call of the route; copies (``mirror``) are no calls."""
    proxied = () if route.proxy is None else route.proxy.destinations
    return frozenset((*proxied, *(name for call in route.calls.values() for name in call.upstreams)))


def _unknown(config: Config, name: str) -> str:
    meant = suggestion(name, config.limits) or f"; write the section [limits.{name}]"
    return f'"{name}" is no section of [limits]{meant}'


def _roots(section: Limit) -> set[str]:
    """The names that a limit reads. Expressions with mistakes read nothing."""
    valid = [compiled(text, ()) for _, text in _texts(section) if not mistake(text, ())]
    return {name.root for expression in valid for name in expression.names}


def mistake(text: str, where: tuple[str | int, ...]) -> str:
    """Why an expression cannot be one of a limit, as one sentence; empty if it can."""
    try:
        expression = compiled(text, where)
    except ValueError as error:
        return str(error)
    for root, member in expression.names:
        if reason := _mistaken_name(root, member):
            return reason
    return next(filter(None, map(_mistaken_part, _parts(expression.tree))), "")


def _mistaken_cost(text: str, burst: int) -> str:
    """Why a constant cannot be a cost; empty: it can, or the cost depends on the request."""
    expression = compiled(text, ())
    if expression.names:
        return ""
    value = _evaluated(expression, {})
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return f"{text} is no number of 0 or more; write a number, such as `2`"
    if value > burst:
        return f"the cost is more than burst ({burst}), so no request is ever admitted; raise burst"
    return ""


def _evaluated(expression: Expression, values: Mapping[str, Any]) -> Any:
    """The value of an expression; None if it cannot be evaluated."""
    try:
        return expression.evaluate(values)
    except ExpressionError:
        return None


def needs_identity(section: Limit) -> bool:
    """Whether a limit reads ``auth``, so that it is decided after authentication."""
    return "auth" in _roots(section)


def _texts(section: Limit) -> Iterator[tuple[str, str]]:
    yield "key", section.key
    if section.cost is not None:
        yield "cost", section.cost


def _mistaken_name(root: str, member: str | None) -> str:
    if root not in ROOTS:
        return f'"{root}" is unknown; a limit reads {", ".join(ROOTS)}{suggestion(root, ROOTS)}'
    if root == "client" and member != "ip":
        return "write client.ip: of the client only the address is known"
    if root in _SINGLE and member is None:
        return f"name one member of {root}, such as {_SINGLE[root]}"
    if root == "headers" and member is not None:
        if member != member.lower():
            return f"write the name of a header in lower case: headers.{member.lower()}"
        if is_hop_by_hop(member.replace("_", "-").encode()):
            return f'"{member}" belongs to one connection and is always null here; remove headers.{member}'
    if root == "auth" and member is not None and member not in IDENTITY_MEMBERS:
        hint = suggestion(member, IDENTITY_MEMBERS) or f"; a claim of a token is auth.claims.{member}"
        return f'auth has no "{member}", only {", ".join(IDENTITY_MEMBERS)}{hint}'
    return ""


def _parts(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a part of an expression and those within it that are evaluated on the same value."""
    yield node
    children = node["children"] if node["type"] in SAME_VALUE else node["children"][: node["type"] in FIRST_ONLY]
    for child in children:
        yield from _parts(child)


def _mistaken_part(node: Mapping[str, Any]) -> str:
    """Why a part of an expression is always null, since it reads a member or an item of a text; empty: it is not."""
    if node["type"] == "subexpression":
        root, second, *rest = node["children"]
        if root["type"] != "field":
            return ""
        if second["type"] == "field":
            member, reads_member, reads_item = second, bool(rest) and rest[0]["type"] == "field", False
        else:
            member, reads_member, reads_item = _value(second), False, second["type"] in FIRST_ONLY
        names = [root["value"], member["value"]] if member["type"] == "field" else []
    else:
        reads_item = node["type"] in FIRST_ONLY
        reads_member = node["type"] == "pipe" and node["children"][1]["type"] == "field"
        if node["type"] == "pipe" and not reads_member:
            return ""
        names = _chain(_value(node)) if reads_item else []
    if len(names) != 2:
        return ""
    is_text = names[0] in ("client", "path", *_SINGLE) or names in _TEXTS_OF_AUTH
    if is_text and (reads_member or reads_item):
        name = ".".join(names)
        return f"{name} is one value, so its members and items are always null; write {name} alone"
    if names == ["auth", "scopes"] and reads_member:
        return "auth.scopes is a list of texts, so its members are always null; write an item, such as auth.scopes[0]"
    return ""


def _value(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The innermost value of which a part takes items."""
    while node["type"] in (*FIRST_ONLY, "flatten") and node["type"] != "subexpression":
        node = node["children"][0]
    return node


def _has_identity(route: Route) -> bool:
    return route.auth is not None and route.auth != PUBLIC


def warn(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning, as key path and reason, for each valid key that probably does not do what was meant."""
    for name, section in config.limits.items():
        limited = {each for each, upstream in config.upstreams.items() if name in upstream.limits}
        routes = [route for route in config.routes if name in route.limits or limited & upstreams_of(route)]
        if not routes and not limited and name not in config.server.limits:
            yield ("limits", name), "no route and no upstream of the configuration has it in limits"
        if section.shared == "worker" and "sync" in section.model_fields_set:
            yield ("limits", name, "sync"), 'has no effect with shared = "worker"; remove one of them'
        expression = compiled(section.key, ("limits", name, "key"))
        variables = [_variables(route) for route in routes]
        common = frozenset.intersection(*variables) if variables else frozenset()
        if missing := _nullable(expression, common, identified=all(map(_has_identity, routes))):
            yield (
                ("limits", name, "key"),
                f"requests without {missing} count together, as one client; add what they are to count by, such as"
                f" {missing} || client.ip",
            )
        elif _evaluated(expression, _bare_request(common, identified=all(map(_has_identity, routes)))) is None:
            yield (
                ("limits", name, "key"),
                "is null for requests without the headers, parameters and cookies that it reads; they count together,"
                " as one client; add what they are to count by",
            )


def _bare_request(in_path: Collection[str], *, identified: bool) -> dict[str, Any]:
    """The values of a request with nothing that a client may leave out. The arguments are those of ``_nullable``."""
    identity = {"kind": "jwt", "name": "a", "sub": "a", "scopes": [], "claims": {}} if identified else None
    return {"client": {"ip": "192.0.2.1"}, "path": dict.fromkeys(in_path, "a"), "auth": identity} | {
        root: {} for root in _SINGLE
    }


def _variables(route: Route) -> frozenset[str]:
    rule = Rule(route.path)
    Map([rule])
    return frozenset(rule.arguments)


def _nullable(expression: Expression, in_path: Collection[str], *, identified: bool) -> str:
    """The name that makes a key null if a request does not have it; empty if none is found.

    Args:
        expression: the key.
        in_path: the variables that the paths of all its routes have.
        identified: whether all its routes have ``auth``.
    """

    def found(tree: Mapping[str, Any]) -> str:
        if tree["type"] == "or_expression":
            first, second = map(found, tree["children"])
            return second if first else ""
        names = _chain(tree)
        if not names or names[0] == "client":
            return ""
        if identified and names in _TEXTS_OF_AUTH:
            return ""
        if names[0] == "path" and len(names) == 2 and names[1] in in_path:
            return ""
        return ".".join(names)

    return found(expression.tree)


def _chain(tree: Mapping[str, Any]) -> list[str]:
    """The names of an expression such as ``auth.claims.tenant``; none for another expression."""
    if tree["type"] == "field":
        return [tree["value"]]
    if tree["type"] != "subexpression":
        return []
    parts = [_chain(each) for each in tree["children"]]
    return [name for part in parts for name in part] if all(parts) else []
