"""The sections ``[auth.NAME]``: the credentials that routes accept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from ..constraints import ConstraintViolation, enforce
from ..section import AS_TUPLE, Section, as_list
from ..values.types import HeaderName, UpstreamName
from ..values.units import Duration

_PLACE = re.compile(r"header|(?:cookie|query):[A-Za-z0-9_.~-]+|cookie:__(?:Host|Secure)-[A-Za-z0-9_.~-]+")
_SAN = re.compile(r"dns:(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|[a-z][a-z0-9+.-]{0,30}://[!-~]+")
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_KEY_SET_PATH = re.compile(r"/[!-~]*")
_OTHER_MEANING = frozenset(
    {
        "cache-control",
        "cookie",
        "date",
        "dnt",
        "expect",
        "forwarded",
        "from",
        "last-event-id",
        "max-forwards",
        "origin",
        "pragma",
        "priority",
        "proxy",
        "range",
        "referer",
        "remote-addr",
        "server",
        "set-cookie",
        "traceparent",
        "tracestate",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "www-authenticate",
        "x-http-method-override",
        "x-original-host",
        "x-real-ip",
        "x-request-id",
    }
)
_OTHER_MEANING_PREFIXES = ("accept", "access-control-", "content-", "if-", "proxy-", "sec-", "x-forwarded-")
"""Header fields with a meaning of their own: browsers, proxies or the gateway write, read or leave out each of them."""


def _place(value: str) -> str:
    if _PLACE.fullmatch(value) is None:
        raise ValueError(f'"{value}" is no place of a token; write "header", "cookie:NAME" or "query:NAME"')
    return value


def _san(value: str) -> str:
    if _SAN.fullmatch(value) is None:
        raise ValueError(
            f'"{value}" is no name of a certificate; write a URI such as "spiffe://example.org/batch", or'
            ' "dns:batch.internal"'
        )
    before, star, after = value.partition("*")
    host = before.partition("://")[2].partition("/")[0]
    if star and not value.startswith("dns:") and (after or not host or not before.endswith("/")):
        raise ValueError(
            f'"{value}" has a * that stands for nothing: only /* at the end of a URI with a host stands for all names'
            " below; write each name, or such a URI"
        )
    return value


def _scope(value: str) -> str:
    if _SCOPE.fullmatch(value) is None:
        raise ValueError(
            "a scope has at least one character, and no space, quote or backslash (RFC 6749 section 3.3); write several"
            ' as a list, such as ["orders:read", "orders:write"]'
        )
    return value


def _key_set_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError('a path begins with a slash, such as "/jwks.json"')
    if _KEY_SET_PATH.fullmatch(value) is None:
        raise ValueError("a path has no space, control character or letter beyond ASCII; write it percent-encoded")
    return value


def _key_field(value: str) -> str:
    name = value.replace("_", "-")
    if name == "authorization":
        raise ValueError(
            '"authorization" has a scheme before the credential (RFC 9110 section 11.6.2), so no key is alone in it;'
            ' write a field of its own, such as "x-api-key"'
        )
    if name in _OTHER_MEANING or name.startswith(_OTHER_MEANING_PREFIXES):
        raise ValueError(
            f'"{value}" has another meaning for browsers, proxies or the gateway; write a field of its own, such as'
            ' "x-api-key"'
        )
    return value


def _not_none(value: object) -> object:
    if isinstance(value, str) and value.lower() == "none":
        raise ValueError(
            'the algorithm "none" means a token without a signature, which anybody can write, so it is never accepted;'
            " write the algorithms with which the issuer signs"
        )
    return value


Algorithm = Annotated[
    Literal[
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
        "HS256",
        "HS384",
        "HS512",
    ],
    BeforeValidator(_not_none),
]
SYMMETRIC = frozenset({"HS256", "HS384", "HS512"})
"""The algorithms whose key both signs and verifies."""
TokenPlace = Annotated[str, AfterValidator(_place)]
CertificateName = Annotated[str, AfterValidator(_san)]
Scope = Annotated[str, AfterValidator(_scope), WithJsonSchema({"type": "string", "pattern": rf"^{_SCOPE.pattern}$"})]
"""A scope (RFC 6749 section 3.3)."""


KeySetPath = Annotated[
    str, AfterValidator(_key_set_path), WithJsonSchema({"type": "string", "pattern": rf"^{_KEY_SET_PATH.pattern}$"})
]
KeyField = Annotated[HeaderName, AfterValidator(_key_field)]


def _jwks_constraints(jwks: Jwks) -> Iterator[ConstraintViolation]:
    """Yield a violation unless exactly one of path and discovery is given."""
    if (jwks.path is not None) == jwks.discovery:
        yield ConstraintViolation(
            "jwks needs one of path and discovery = true: where the keys are, or how they are found",
            ("path", "discovery") if jwks.discovery else ("path",),
        )


AuthNames = Annotated[
    tuple[UpstreamName, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(
        as_list, json_schema_input_type=UpstreamName | Annotated[tuple[UpstreamName, ...], Field(min_length=1)]
    ),
]
"""The names of sections [auth.NAME]; a single name may stand without a list."""


class Jwks(Section):
    """Where the keys of an issuer are: a JSON Web Key Set (RFC 7517) that an upstream of the gateway serves."""

    upstream: UpstreamName
    """The name of the upstream, whose limits and policies hold."""
    path: KeySetPath | None = None
    """The path and query of the key set, below the upstream's base URL."""
    discovery: bool = False
    """Whether the path of the key set is read from the issuer's openid-configuration (OpenID Connect Discovery)."""

    _checked = model_validator(mode="after")(enforce(_jwks_constraints))


def _issuer_constraints(issuer: Issuer) -> Iterator[ConstraintViolation]:
    """Yield a violation unless exactly one source of keys is given."""
    if (issuer.jwks is None) == (issuer.keys is None):
        yield ConstraintViolation(
            "an issuer needs one of jwks and keys: a key set of an upstream, or a file", ("jwks", "keys")
        )


class Issuer(Section):
    """An issuer of tokens, and the keys with which it signs."""

    iss: Annotated[str, Field(min_length=1)]
    """The issuer: the value of the claim iss. It chooses the key set before any key is tried."""
    jwks: Jwks | None = None
    """The key set, fetched from an upstream."""
    keys: str | None = None
    """A file with the keys: public keys or certificates in PEM, or a JSON Web Key Set."""
    audience: Annotated[tuple[str, ...], AS_TUPLE] = ()
    """The values of the claim aud of which a token must have one. Default: any, so that a token that the issuer made
    for another service is accepted too."""

    _checked = model_validator(mode="after")(enforce(_issuer_constraints))


def _jwt_constraints(jwt: JwtAuth) -> Iterator[ConstraintViolation]:
    """Yield the violations of a section of kind jwt."""
    symmetric = [each for each in jwt.algorithms if each in SYMMETRIC]
    if symmetric and len(symmetric) < len(jwt.algorithms):
        yield ConstraintViolation(
            f"{symmetric[0]} beside algorithms with public keys would let anybody who knows a public key sign tokens;"
            " write one kind of algorithms",
            ("algorithms",),
        )
    if symmetric and any(issuer.jwks is not None for issuer in jwt.issuers):
        yield ConstraintViolation(
            f"{symmetric[0]} has a secret key, which no key set should publish; write keys with a file",
            ("algorithms", "issuers"),
        )
    names = [issuer.iss for issuer in jwt.issuers]
    for name in dict.fromkeys(each for each in names if names.count(each) > 1):
        yield ConstraintViolation(f'the issuer "{name}" is given twice; write it once', ("issuers",))


class JwtAuth(Section):
    """Tokens of the kind JWT (RFC 7519), as access tokens of OAuth 2.0 are. Needs pip install 'umbel[auth]'."""

    kind: Literal["jwt"]
    """jwt: a signed token that the client got from an issuer."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(strict=False, min_length=1)]
    """The algorithms with which tokens may be signed. There is no default, since the issuer's choice is the only right
    one."""
    issuers: Annotated[tuple[Issuer, ...], Field(strict=False, min_length=1)]
    """The issuers whose tokens are accepted."""
    leeway: Duration = 60.0
    """The most by which the clocks of issuer and gateway may differ: it is added to exp, nbf and iat."""
    refresh: Duration = 600.0
    """The time after which a key set is fetched again."""
    stale_if_error: Duration = 3600.0
    """The time for which the last key set is used while it cannot be fetched again, counted from when refresh has
    passed. Afterwards tokens are refused with 503."""
    unknown_kid_cooldown: Duration = 30.0
    """The shortest time between two fetches of a key set because of a token whose key is unknown."""
    ready_without_keys: bool = False
    """Whether /readyz says that the worker is ready before the first key set was fetched. A start, a reload and a
    recycle then wait for no keys, and the new worker may replace one that has them."""
    required: Annotated[tuple[str, ...], AS_TUPLE] = ("exp", "sub")
    """The claims that a token must have."""
    typ: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("at+jwt", "JWT")
    """The values of the header member typ that a token may have. A token without typ counts as JWT."""
    from_: Annotated[tuple[TokenPlace, ...], Field(alias="from", strict=False, min_length=1)] = ("header",)
    """Where the token is: header (Authorization: Bearer), cookie:NAME or query:NAME. The first place that has one
    counts. With a cookie, unsafe methods, WebSockets and routes with a call of an unsafe method need an Origin or
    Sec-Fetch-Site of the gateway's own origin or of one that [cors] allows, else they get 403."""
    cache: Annotated[int, Field(ge=0)] = 10_000
    """The most verified tokens that are remembered, each for at most a minute."""

    _checked = model_validator(mode="after")(enforce(_jwt_constraints))


class ApiKeyAuth(Section):
    """API keys: long random texts that are given to partners."""

    kind: Literal["api-key"]
    """api-key: a secret text in a header field."""
    header: KeyField = "x-api-key"
    """The header field of the key: one that has no other meaning in HTTP."""
    file: str
    """The file of the keys (TOML), read again when it changes: tables [[keys]] with id, sha256 (the SHA-256 of the key
    in hexadecimal), and optionally scopes and expires (a date or a time)."""


class MtlsAuth(Section):
    """Client certificates (mutual TLS). Needs pip install 'umbel[auth]'."""

    kind: Literal["mtls"]
    """mtls: the certificate that the client has presented in the TLS handshake. Of requests from trusted_proxies it is
    the one in X-Forwarded-Client-Cert, whose last element counts, and never the proxy's own. hypercorn.toml has
    clients asked for certificates by ca_certs and verify_mode, 1 (optional) or 2 (required)."""
    allow: Annotated[tuple[CertificateName, ...], Field(strict=False, min_length=1)]
    """The names (subject alternative names) of which a certificate must have one: URIs, of which one that ends in /*
    stands for all below it, or dns:NAME, where * may stand for the first label."""


def _auth_name(value: str) -> str:
    if value == "none":
        raise ValueError('"none" means that a route is public, so no section can have this name; write another one')
    return value


AuthName = Annotated[UpstreamName, AfterValidator(_auth_name)]
"""The name of a section ``[auth.NAME]``."""
KINDS = ("jwt", "api-key", "mtls")
"""The values of ``kind``, which decides on the other keys of a section."""
Auth = Annotated[JwtAuth | ApiKeyAuth | MtlsAuth, Field(discriminator="kind")]
"""A section ``[auth.NAME]``."""
