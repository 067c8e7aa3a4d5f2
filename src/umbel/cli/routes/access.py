"""Who may call a route, in words: the credentials that it accepts, what they must grant, and the refusals.

No line holds a key, a digest or a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...config.schema.access.auth import ApiKeyAuth, Auth, JwtAuth
from ...config.schema.sections import PUBLIC, Config, Limit
from ...gateway.access.configured_access import makes_unsafe_calls
from ...limits.checks import needs_identity

if TYPE_CHECKING:
    from ...composition.plan.plan import Plan

_PLACES = {"header": "in Authorization: Bearer", "cookie": "in the cookie", "query": "in the query parameter"}


def access_of(config: Config, plan: Plan) -> Iterator[str]:
    """Yield the lines about the admission to a route, in its order; none if nothing about it is configured."""
    sections = [(name, config.limits[name]) for name in plan.route.limits]
    yield from (_limit(config, name, config.limits[name], " of all requests") for name in config.server.limits)
    yield from (_limit(config, *each) for each in sections if not needs_identity(each[1]))
    yield from _credentials(config, plan)
    yield from (_limit(config, *each) for each in sections if needs_identity(each[1]))


def _limit(config: Config, name: str, section: Limit, what: str = "") -> str:
    return f"limit {name}{what}: {limit_text(section)}, else 429  [{config.where(('limits', name))}]"


def limit_text(section: Limit) -> str:
    """What a limit admits, in words."""
    cost = "" if section.cost is None else f", each at the cost {section.cost}"
    where = "in all workers together" if section.shared == "machine" else "in each worker"
    return f"at most {section.rate} and {section.burst} at once for each {section.key}{cost}, {where}"


def _credentials(config: Config, plan: Plan) -> Iterator[str]:
    route = plan.route
    if route.auth is None:
        if config.auth:
            yield "anybody: the route has no auth"
        return
    if route.auth == PUBLIC:
        yield 'anybody: auth = "none"'
        return
    for number, name in enumerate(route.auth):
        yield f"{'or ' if number else ''}{name}: {_credential(config.auth[name])}  [{config.where(('auth', name))}]"
    if route.scopes:
        yield f"all of the scopes {', '.join(route.scopes)}"
    if route.scopes_any:
        yield f"one of the scopes {', '.join(route.scopes_any)}"
    if route.allow is not None:
        yield f"if {route.allow}"
    yield from _refusals([config.auth[name] for name in route.auth], plan)


def _credential(auth: Auth) -> str:
    if isinstance(auth, ApiKeyAuth):
        return f"API key in {auth.header}, of the file {auth.file}"
    if isinstance(auth, JwtAuth):
        places = " or ".join(_place(each) for each in auth.from_)
        issuers = " or ".join(
            f"{issuer.iss} for {' or '.join(issuer.audience) or 'any audience'}" for issuer in auth.issuers
        )
        return f"token ({', '.join(auth.algorithms)}) {places}, issued by {issuers}"
    return f"client certificate for {' or '.join(auth.allow)}"


def _place(text: str) -> str:
    kind, _, name = text.partition(":")
    return f"{_PLACES[kind]} {name}".rstrip()


def _refusals(sections: list[Auth], plan: Plan) -> Iterator[str]:
    route = plan.route
    yield "else 401: without a credential, or with one that is not valid; 400: with a malformed one"
    causes = [
        *(("without the scopes",) if route.scopes or route.scopes_any else ()),
        *(("if allow is false",) if route.allow is not None else ()),
    ]
    tokens = [section for section in sections if isinstance(section, JwtAuth)]
    if any(place.startswith("cookie:") for section in tokens for place in section.from_):
        which = "" if makes_unsafe_calls(plan) else "the method is unsafe and "
        causes.append(f"with a token in a cookie, if {which}the origin is not allowed")
    if causes:
        yield f"403: {', or '.join(causes)}"
    if any(issuer.jwks is not None for section in tokens for issuer in section.issuers):
        yield "503: while the keys of the token's issuer cannot be fetched"
