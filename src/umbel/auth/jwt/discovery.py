"""Where the key set of an issuer is: at a configured path, or as OpenID Connect Discovery 1.0 says."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from ...composition.decode import BadBodyError, decode_json
from .key_source import FetchError, KeyUpstream

WELL_KNOWN = "/.well-known/openid-configuration"
URL_MAX = 2048
"""The most characters of the URL of a key set."""

_PRINTABLE = re.compile(r"[!-~]+")
_PORTS = {"http": 80, "https": 443}

Load = Callable[[KeyUpstream], Awaitable[bytes]]


def origin_of(url: str) -> str:
    """The origin of an http or https URL (RFC 6454 section 4), with its port; empty if it has none.

    Credentials in the URL are refused too.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
        host = parts.hostname
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
        return ""
    return f"{parts.scheme}://{host.lower()}:{port}"


def path_of_issuer(issuer: str) -> str | None:
    """The path of the issuer's configuration (Discovery section 4.1); None: the issuer is no such URL (section 3)."""
    if _PRINTABLE.fullmatch(issuer) is None or not origin_of(issuer) or "?" in issuer or "#" in issuer:
        return None
    return urlsplit(issuer).path.removesuffix("/") + WELL_KNOWN


def at_path(path: str) -> Load:
    """Make the function that fetches the key set at a path of an upstream."""

    async def load(upstream: KeyUpstream) -> bytes:
        return await upstream.fetch(path)

    return load


def discovered(issuer: str) -> Load:
    """Make the function that finds and fetches the key set of an issuer, all through one upstream.

    ``jwks_uri`` must have the origin of the issuer or of the upstream; its path and query are fetched below the
    upstream's base URL. So the document cannot send the gateway to another place.

    Raises:
        ValueError: the issuer is no http or https URL without query and fragment.
    """
    path = path_of_issuer(issuer)
    if path is None:
        raise ValueError("the issuer is no http or https URL without query and fragment")

    async def load(upstream: KeyUpstream) -> bytes:
        target = key_set_path(await upstream.fetch(path), issuer, {origin_of(issuer), *upstream.origins})
        return await upstream.fetch(target)

    return load


def key_set_path(document: bytes, issuer: str, origins: set[str]) -> str:
    """The path and query of the key set that an openid-configuration names.

    Args:
        document: the configuration (Discovery section 4.2).
        issuer: the issuer that it must name.
        origins: the origins that the key set may have.

    Raises:
        FetchError: the document is not usable.
    """
    try:
        value = decode_json(document)
    except BadBodyError:
        value = None
    if not isinstance(value, dict):
        raise FetchError("the openid-configuration is no JSON object")
    if value.get("issuer") != issuer:
        raise FetchError("the openid-configuration is that of another issuer")
    url = value.get("jwks_uri")
    if not isinstance(url, str) or len(url) > URL_MAX or _PRINTABLE.fullmatch(url) is None:
        raise FetchError('the openid-configuration has no URL in "jwks_uri"')
    if not (origin := origin_of(url)) or origin not in origins:
        raise FetchError('"jwks_uri" has neither the origin of the issuer nor that of the upstream; write path instead')
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
