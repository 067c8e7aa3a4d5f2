"""Checks for keys about credentials that are valid by themselves and have no effect, or another one than was meant."""

from __future__ import annotations

from collections.abc import Iterator

from ..composition.answer.cache_control import allows_shared
from ..composition.text.expression import compile_expression
from ..config.schema.access.auth import ApiKeyAuth, Auth, JwtAuth, MtlsAuth
from ..config.schema.sections import PUBLIC, Config, KeyPath, Route
from ..config.schema.values.units import format_duration

LEEWAY_MAX = 300.0
"""Seconds: the longest leeway without a warning. Clocks that are set by NTP differ by less than a second."""


def never_admitting(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the reason for each key that lets no request in."""
    for name, section in config.auth.items():
        if isinstance(section, ApiKeyAuth) and "_" in section.header and config.server.underscore_headers != "keep":
            yield (
                ("auth", name, "header"),
                f'a request with "{section.header}" gets 400 for the underscore; write hyphens, or'
                ' underscore_headers = "keep" in [server]',
            )
    for index, route in enumerate(config.routes):
        sections = _sections(config, route)
        if sections and all(isinstance(each, MtlsAuth) for each in sections):
            for key in ("scopes", "scopes_any"):
                if getattr(route, key):
                    yield (
                        ("routes", index, key),
                        f"client certificates grant no scopes, and the route {route.path} accepts nothing else, so it"
                        " would refuse every request; compare the name in allow, such as auth.sub == 'spiffe://…'",
                    )


def warn_of_effects(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and a warning for each key that probably does not do what was meant."""
    for name, section in config.auth.items():
        if isinstance(section, JwtAuth):
            yield from _of_times(("auth", name), section)
        elif isinstance(section, MtlsAuth):
            for place, each in enumerate(section.allow):
                if each.startswith("dns:*.") and "." not in each.removeprefix("dns:*."):
                    yield (
                        ("auth", name, "allow", place),
                        "lets each host directly below a top-level domain in; write more labels, such as"
                        " dns:*.workers.internal",
                    )
    for index, route in enumerate(config.routes):
        sections = _sections(config, route)
        if not sections:
            continue
        if not any(isinstance(each, JwtAuth) for each in sections) and _reads_claims(route):
            yield (
                ("routes", index, "allow"),
                f"reads auth.claims, which only tokens have, and no section in auth of the route {route.path} is of the"
                " kind jwt: so it is always null",
            )
        fields = {} if route.proxy is None else route.proxy.response_headers.set_
        for field, value in fields.items():
            if field == "cache-control" and allows_shared(value):
                yield (
                    ("routes", index, "proxy", "response_headers", "set", field),
                    "lets shared caches give the response, which is for one client, to other clients; write"
                    ' "private", or remove it',
                )


def _sections(config: Config, route: Route) -> list[Auth]:
    """The sections that a route accepts; empty if it is public, or if one of them is unknown."""
    names = () if route.auth is None or route.auth == PUBLIC else route.auth
    sections = [config.auth[name] for name in names if name in config.auth]
    return sections if len(sections) == len(names) else []


def _reads_claims(route: Route) -> bool:
    if route.allow is None:
        return False
    names = compile_expression(route.allow, ()).names
    return any(name.root == "auth" and name.field == "claims" for name in names)


def _of_times(at: KeyPath, section: JwtAuth) -> Iterator[tuple[KeyPath, str]]:
    if "exp" not in section.required:
        yield (*at, "required"), "has no exp, so a token without exp is accepted for ever; add it"
    if section.leeway > LEEWAY_MAX:
        yield (
            (*at, "leeway"),
            f"is {format_duration(section.leeway)}: a token is accepted for so long after it has expired; clocks differ"
            " by seconds",
        )
