"""The names of the header fields, cookies and query parameters that hold the credentials of clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..sections import Config, Logs
from .auth import ApiKeyAuth, Auth, JwtAuth, MtlsAuth


def credential_fields(auth: Auth) -> tuple[str, ...]:
    """The header fields of a request, in lower case, in which the credentials of a section may be."""
    if isinstance(auth, ApiKeyAuth):
        return (auth.header.lower(),)
    if isinstance(auth, MtlsAuth):
        return ()
    fields = {"header": "authorization", "cookie": "cookie"}
    return tuple(dict.fromkeys(fields[kind] for each in auth.from_ if (kind := each.partition(":")[0]) in fields))


def credential_names(auth: Auth, place: str) -> frozenset[str]:
    """The names of the cookies, or with ``place`` "query" of the query parameters, that are credentials."""
    places = auth.from_ if isinstance(auth, JwtAuth) else ()
    return frozenset(name for kind, _, name in (each.partition(":") for each in places) if kind == place)


class CredentialNames(NamedTuple):
    """The names of the header fields and cookies that are credentials for the gateway alone."""

    fields: frozenset[str] = frozenset()
    """The fields of API keys, in lower case, with hyphens for underscores."""
    cookies: frozenset[str] = frozenset()


NO_CREDENTIALS = CredentialNames()


def credentials_of(sections: Iterable[Auth]) -> CredentialNames:
    """The names of the credentials that upstreams get only if a call names them, and never from a proxy route."""
    fields: set[str] = set()
    cookies: set[str] = set()
    for each in sections:
        if isinstance(each, ApiKeyAuth):
            fields.add(each.header.lower().replace("_", "-"))
        cookies |= credential_names(each, "cookie")
    return CredentialNames(frozenset(fields), frozenset(cookies))


def logs_of(config: Config) -> Logs:
    """The section ``[logs]``, whose ``redact`` also has the names of all credentials that routes accept."""
    names = set[str]()
    for each in config.auth.values():
        names.update(credential_fields(each), credential_names(each, "cookie"), credential_names(each, "query"))
    more = sorted(names.difference(config.logs.redact))
    return config.logs.model_copy(update={"redact": (*config.logs.redact, *more)}) if more else config.logs
