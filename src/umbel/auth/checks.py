"""Checks of ``[auth.NAME]`` and of the keys of routes about it that need several tables, or the files of keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config.loading.errors.did_you_mean import suggestion
from ..config.loading.file_rules import needs_key_files
from ..config.schema.access.auth import ApiKeyAuth, Auth, JwtAuth, MtlsAuth
from ..config.schema.sections import PUBLIC, Config, KeyPath, Route
from . import forwarded_credentials
from .certificates import client_certificates
from .effect_checks import never_admitting, warn_of_effects
from .jwt import authenticator as jwt
from .keys import api_keys


def check(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the mistakes as key path and reason. For the argument ``checks`` of ``load``. Reads the files of keys."""
    if not config.has_lost(("auth",), config.auth):
        for index, route in enumerate(config.routes):
            yield from _unknown_names(config, index, route)
    yield from never_admitting(config)
    for name, section in config.auth.items():
        for path, reason in _problems(section):
            yield ("auth", name, *path), reason
        if isinstance(section, JwtAuth) and not config.has_lost(("upstreams",), config.upstreams):
            for place, issuer in enumerate(section.issuers):
                if issuer.jwks is not None and issuer.jwks.upstream not in config.upstreams:
                    given = issuer.jwks.upstream
                    path = ("auth", name, "issuers", place, "jwks", "upstream")
                    yield path, f'"{given}" is no upstream{suggestion(given, config.upstreams)}'


def _unknown_names(config: Config, index: int, route: Route) -> Iterator[tuple[KeyPath, str]]:
    names = () if route.auth is None or route.auth == PUBLIC else route.auth
    for place, name in enumerate(names):
        if name not in config.auth and name not in PUBLIC:
            meant = suggestion(name, [*config.auth, *PUBLIC]) or f"; write the section [auth.{name}]"
            at: KeyPath = ("routes", index, "auth", *((place,) if len(names) > 1 else ()))
            yield at, f'"{name}" is no section of [auth]{meant}'


def _problems(section: Auth) -> Iterator[tuple[KeyPath, str]]:
    # The loader has made paths absolute, except those of a misspelt key, which is reported already.
    if not all(Path(file).is_absolute() for file in _files(section)):
        return iter(())
    if isinstance(section, JwtAuth):
        return jwt.problems(section)
    if isinstance(section, MtlsAuth):
        return client_certificates.problems(section)
    return api_keys.problems(section) if needs_key_files() else iter(())


def _files(section: Auth) -> Iterator[str]:
    """Yield the files that a section names."""
    if isinstance(section, ApiKeyAuth):
        yield section.file
    elif isinstance(section, JwtAuth):
        yield from (issuer.keys for issuer in section.issuers if issuer.keys is not None)


def warn(config: Config, served: Mapping[str, Any] | None = None) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning, as key path and reason, for each valid key that probably does not do what was meant.

    Args:
        config: a configuration without mistakes.
        served: the numbers in hypercorn.toml; None: unknown.
    """
    used = {name for route in config.routes for name in route.auth or ()}
    for name, section in config.auth.items():
        at: KeyPath = ("auth", name)
        if name not in used:
            yield at, "no route of the configuration has it in auth"
        if isinstance(section, JwtAuth):
            yield from _warn_of_tokens(at, section)
        elif isinstance(section, MtlsAuth) and _no_certificates(config, served):
            yield (
                (*at, "kind"),
                "no client can present a certificate: write ca_certs and verify_mode into hypercorn.toml, or"
                " trusted_proxies into [server]",
            )
    yield from warn_of_effects(config)
    if config.auth:
        for index, route in enumerate(config.routes):
            if route.auth is None:
                yield ("routes", index), 'has no auth, so anybody may call it; write auth = "none" if that is meant'
    yield from forwarded_credentials.warn(config)


def _no_certificates(config: Config, served: Mapping[str, Any] | None) -> bool:
    """Whether no request can have a client certificate. ``served`` as in ``warn``."""
    return served is not None and not served.get("verify_mode") and not config.server.trusted_proxies


def _warn_of_tokens(at: KeyPath, section: JwtAuth) -> Iterator[tuple[KeyPath, str]]:
    for place, each in enumerate(section.from_):
        if each.startswith("query:"):
            yield (
                (*at, "from", place),
                "URLs are kept in logs and histories of browsers and proxies, and so is a token in a query (RFC 6750"
                " section 2.3); write header if clients can send one",
            )
    for place, issuer in enumerate(section.issuers):
        if not issuer.audience:
            yield (
                (*at, "issuers", place),
                "has no audience, so a token that the issuer made for another service is accepted too",
            )
