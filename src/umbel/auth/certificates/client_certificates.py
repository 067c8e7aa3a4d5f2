"""Client certificates: verification of the names in a certificate against ``allow`` of a section ``[auth.NAME]``.

Theory
------
**Whose certificate.** A request comes either from the client itself or from a proxy that speaks for the client.

- From any peer that is not one of ``[server] trusted_proxies``, the certificate of the TLS handshake is the client's.
  Its X-Forwarded-Client-Cert is ignored, since anybody can write one.
- From a trusted proxy, X-Forwarded-Client-Cert says who the client is, and its last element counts: the one that this
  proxy has written. The certificate of the handshake, if there is one, is the proxy's own. It is never taken for the
  client's, also if the field is missing: otherwise each client of the proxy would have the proxy's identity. So a
  machine that is to be known by its own certificate must not be in ``trusted_proxies``.

**What a name proves.** The handshake has verified the chain and the possession of the key. It has also verified the
validity period, but only at that moment: a connection that is kept alive, and a session that is resumed without a new
verification (RFC 8446 section 2.2), have the certificate of their first handshake for as long as they last. So the
validity period (RFC 5280 section 4.1.2.5) is compared with the clock for each request. Of a field, the proxy has
verified the certificate, and when it does so is the proxy's matter: the field states no validity period. Only subject
alternative names of the types URI and DNS count (RFC 5280 section 4.2.1.6), never the common name.

**Which names are allowed.** A URI equals one of ``allow``; scheme and host are compared without regard to case (RFC
3986 section 6.2.2.1), all else exactly. With ``/*`` at its end it stands for all URIs below. Below it are only URIs
that every reader divides into the same segments: not one with an empty segment, a dot segment, an encoded slash,
backslash or control character, or a character that no URI has. A DNS name is compared without regard to case. ``*`` as
its first label stands for one label of letters, digits, hyphens and underscores: a certificate for a wildcard name is
not one for each name.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import trio

from ...config.schema.access.auth import MtlsAuth
from ...config.schema.sections import KeyPath
from ...core.identity import Identity
from ...net.bounded_cache import BoundedCache
from ..authenticator import Place, Presented, Refusal
from ..config_error import AuthConfigError
from ..extra import CERTIFICATES, HOW_TO_INSTALL, is_installed
from .forwarded_client_cert import CertificateNames, names_of_last_element

FORWARDED = "x-forwarded-client-cert"
"""The field by which a proxy reports the client's certificate."""
CACHED_MAX = 1024
"""The most certificates whose verdict is remembered."""
NAME_MAX = 2048
"""The most characters of a name that is considered: the longest SPIFFE ID (SPIFFE-ID section 2.3)."""

_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://[^/?#]*+)(.*+)", re.DOTALL)
_DOT_SEGMENT = re.compile(r"(?:\A|/)(?:\.|%2e){1,2}(?:[/?#]|\Z)", re.IGNORECASE)
# RFC 3986 section 3.3, without the octets that are a slash, a backslash or a control character.
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%(?!2[Ff]|5[Cc]|[01]|7[Ff])[0-9A-Fa-f]{2})"
_BELOW = re.compile(rf"{_PCHAR}++(?:/{_PCHAR}++)*+(?:\?(?:{_PCHAR}|[/?])*+)?+(?:#(?:{_PCHAR}|[/?])*+)?+")
_LABEL = re.compile(r"[a-z0-9_-]+")
_FROM_HANDSHAKE, _FROM_PROXY = Place("tls"), Place("header", FORWARDED)

_NOT_ALLOWED = Refusal("No name of the client certificate is allowed here.")
_UNREADABLE = Refusal("The client certificate cannot be read.")
_EXPIRED = Refusal("The client certificate has expired.", outcome="expired")
_NOT_YET = Refusal("The client certificate is not valid yet.")
_MALFORMED = Refusal("X-Forwarded-Client-Cert is malformed.", "invalid_request")


class Certificate(NamedTuple):
    """What a certificate says of its holder, and when it is valid."""

    names: CertificateNames
    not_before: float
    """The Unix time from which on the certificate is valid."""
    not_after: float
    """The last Unix time at which the certificate is valid."""


class _Verdict(NamedTuple):
    """The verdict on a certificate, whose names do not change; its validity period depends on the clock."""

    sub: str
    """The name that lets it in."""
    not_before: float
    not_after: float


class MtlsAuthenticator:
    """Authenticator for client certificates.

    Args:
        name: the name of the section.
        section: the section.
        wall: the Unix time, which the validity periods are compared with.

    Raises:
        AuthConfigError: the library that reads certificates is not installed.
    """

    kind = "mtls"

    def __init__(self, name: str, section: MtlsAuth, *, wall: Callable[[], float] = time.time) -> None:
        for key, reason in problems(section):
            raise AuthConfigError(key, reason)
        self.name = name
        self._allowed = _AllowedNames(section.allow)
        self._wall = wall
        self._verdicts: BoundedCache[bytes, _Verdict | Refusal] = BoundedCache(CACHED_MAX)
        """By the SHA-256 of the certificate."""

    def authenticate(self, presented: Presented) -> Identity | Refusal | None:
        """Verify the client certificate of a request; see ``Authenticator.authenticate``."""
        if presented.trusted:
            if not (field := presented.fields.get(FORWARDED)):
                return None
            names = names_of_last_element(field)
            found = _MALFORMED if names is None else self._allowed.first_of(names) or _NOT_ALLOWED
        elif presented.certificate is None:
            return None
        else:
            found = self._verdict(presented.certificate)
        return found if isinstance(found, Refusal) else Identity(self.kind, self.name, found)

    async def renew_keys(self, presented: Presented) -> bool:
        """Return False: there is no provider to fetch keys from."""
        await trio.lowlevel.checkpoint()
        return False

    def used(self, presented: Presented) -> Place | None:
        """Return the handshake, or the field of a trusted proxy; None without a certificate."""
        if presented.trusted:
            return _FROM_PROXY if presented.fields.get(FORWARDED) else None
        return None if presented.certificate is None else _FROM_HANDSHAKE

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge, which is the same with and without a refusal.

        RFC 9110 demands a challenge with each 401. No scheme for certificates is registered, so a client ignores it.
        """
        return f'Certificate realm="{self.name}"'

    @property
    def places(self) -> tuple[Place, ...]:
        """The handshake, and the field of a trusted proxy."""
        return _FROM_HANDSHAKE, _FROM_PROXY

    def _verdict(self, der: bytes) -> str | Refusal:
        """Return the name that lets a certificate in now, or the refusal."""
        digest = hashlib.sha256(der).digest()
        verdict = self._verdicts.get(digest)
        if verdict is None:
            verdict = self._first_verdict(der)
            self._verdicts.add(digest, verdict)
        if isinstance(verdict, Refusal):
            return verdict
        now = self._wall()
        if now > verdict.not_after:
            return _EXPIRED
        return verdict.sub if now >= verdict.not_before else _NOT_YET

    def _first_verdict(self, der: bytes) -> _Verdict | Refusal:
        certificate = read(der)
        if certificate is None:
            return _UNREADABLE
        sub = self._allowed.first_of(certificate.names)
        return _NOT_ALLOWED if sub is None else _Verdict(sub, certificate.not_before, certificate.not_after)


class _AllowedNames:
    """The names in ``allow`` of a section."""

    def __init__(self, allow: tuple[str, ...]) -> None:
        dns = [name.removeprefix("dns:").lower() for name in allow if name.startswith("dns:")]
        uris = [_normalized(name) for name in allow if not name.startswith("dns:")]
        self._dns = frozenset(name for name in dns if not name.startswith("*."))
        self._domains = frozenset(name.removeprefix("*.") for name in dns if name.startswith("*."))
        self._uris = frozenset(uri for uri in uris if not uri.endswith("/*"))
        self._prefixes = tuple(uri.removesuffix("*") for uri in uris if uri.endswith("/*"))

    def first_of(self, names: CertificateNames) -> str | None:
        """Return the first name that is allowed, URIs before DNS names; None if none is."""
        for uri in names.uris:
            if len(uri) <= NAME_MAX and self._has_uri(_normalized(uri)):
                return uri
        for name in names.dns:
            if len(name) <= NAME_MAX and self._has_dns(name.lower()):
                return name.lower()
        return None

    def _has_uri(self, uri: str) -> bool:
        if uri in self._uris:
            return True
        return any(uri.startswith(prefix) and _is_below(uri[len(prefix) :]) for prefix in self._prefixes)

    def _has_dns(self, name: str) -> bool:
        label, dot, domain = name.partition(".")
        return name in self._dns or (bool(dot) and domain in self._domains and _LABEL.fullmatch(label) is not None)


def _is_below(rest: str) -> bool:
    """Whether what a URI has after a prefix that ends with a slash leads below the prefix, for every reader."""
    return _BELOW.fullmatch(rest) is not None and _DOT_SEGMENT.search(rest) is None


def _normalized(uri: str) -> str:
    """Return a URI with its scheme and host in lower case."""
    parts = _AUTHORITY.fullmatch(uri)
    return uri if parts is None else parts[1].lower() + parts[2]


def read(der: bytes) -> Certificate | None:
    """Return the subject alternative names and the validity period of a certificate (DER); None if it cannot be read.

    A certificate without the extension has no names. The library must be installed (``problems``).
    """
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        period = (certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return Certificate(CertificateNames((), ()), *period)
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
        return Certificate(CertificateNames(uris, tuple(names.get_values_for_type(x509.DNSName))), *period)
    except Exception:  # noqa: BLE001 - a certificate of a client may be malformed in any way, and must only be refused
        return None


def problems(section: MtlsAuth) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of a key of the section, and the reason, for each mistake that only this machine shows."""
    if not is_installed(CERTIFICATES):
        yield ("kind",), f"client certificates need a library that is not installed; install it with: {HOW_TO_INSTALL}"
