"""Interface of the authenticators: from the credentials that a request presents to an identity or a refusal.

There is one ``Authenticator`` per section ``[auth.NAME]``. It looks for a credential of its kind in a request, and
verifies it. ``authenticate`` is a plain function, because a credential whose keys are at hand is verified without
waiting. Where a key may yet come from the provider, the refusal says so (``keys_may_come``), and the caller may await
``renew_keys`` and authenticate once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from ..core.identity import Identity


class Presented(msgspec.Struct, frozen=True):
    """What a request presents: the places in which credentials are looked for."""

    fields: Mapping[str, str]
    """The header fields by name in lower case, decoded as Latin-1. The values of repeated fields are joined by ", "."""
    cookies: Mapping[str, str]
    """The cookies by name; of several with one name the first."""
    query: bytes
    """The raw query of the request target."""
    certificate: bytes | None = None
    """The client's certificate (DER), verified by the TLS handshake with this server; None: there is none."""
    trusted: bool = False
    """Whether the peer is one of ``[server] trusted_proxies``, so that its X-Forwarded-Client-Cert is believed."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a credential does not let a request in. Holds nothing of the credential."""

    reason: str
    """The reason as one sentence for the client, in ASCII without double quotes, such as "The token has expired."."""
    error: str = "invalid_token"
    """The error code of RFC 6750 section 3.1: ``invalid_token``, ``invalid_request`` or ``insufficient_scope``."""
    outcome: str = "invalid"
    """The word for metrics: ``invalid``, ``expired``, ``unknown-key``, ``unknown-issuer`` or ``no-keys``."""
    unavailable: bool = False
    """Whether the gateway cannot verify the credential now, because it has no keys (status 503)."""
    scope: str = ""
    """With the error ``insufficient_scope``: the scopes that are needed, separated by spaces; else empty."""
    keys_may_come: bool = False
    """Whether ``Authenticator.renew_keys`` may bring the key that was missing."""


class Authenticator(Protocol):
    """Verifier of the credentials of one section ``[auth.NAME]``. Its methods may be called by any task."""

    name: str
    """The name of the section."""
    kind: str
    """``jwt``, ``api-key`` or ``mtls``."""

    def authenticate(self, presented: Presented) -> Identity | Refusal | None:
        """Verify the credential of this kind that a request presents. Never waits, and never raises.

        Returns:
            The identity; or why the credential is refused; or None, the request presents no credential of this kind.
        """
        ...

    async def renew_keys(self, presented: Presented) -> bool:
        """Fetch the keys of the credential's issuer once, together with all others who wait for them.

        Returns whether keys were fetched, so that ``authenticate`` may find the key now. Waits at most for the time
        limit of one fetch. Within ``unknown_kid_cooldown`` of the last fetch it returns False at once.
        """
        ...

    def used(self, presented: Presented) -> Place | None:
        """The place of the credential that ``authenticate`` looks at; None: the request presents none."""
        ...

    def challenge(self, refusal: Refusal | None) -> str:
        """The challenge for WWW-Authenticate (RFC 9110 section 11.6.1); ``refusal`` None: no credential was given."""
        ...

    @property
    def places(self) -> tuple[Place, ...]:
        """Every place in which a credential may be. Upstreams get none of those but Authorization (docs/auth.md)."""
        ...


class Place(msgspec.Struct, frozen=True):
    """A place of a request in which a credential may be."""

    kind: str
    """``header``, ``cookie``, ``query`` or ``tls`` (the handshake)."""
    name: str = ""
    """The name of the header field in lower case, of the cookie, or of the query parameter."""
