"""Identity: who makes a request, as a credential of the request proves it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

_NONE: Mapping[str, Any] = MappingProxyType({})


OUTCOMES = (
    *("admitted", "missing", "invalid", "expired", "unknown-key", "unknown-issuer", "no-keys"),
    *("foreign-origin", "insufficient-scope", "not-allowed"),
)
"""The values of ``AuthResult.outcome``."""


class AuthResult(NamedTuple):
    """What the authentication of a request has come to, for records and metrics. Holds nothing of a credential."""

    outcome: str
    """``admitted``; ``missing`` (no credential); a word of ``auth.authenticator.Refusal``; ``foreign-origin``,
    ``insufficient-scope`` or ``not-allowed``."""
    kind: str = ""
    """The kind of the credential; empty without one."""
    name: str = ""
    """The name of the section ``[auth.NAME]``; empty without a credential."""


class Identity(msgspec.Struct, frozen=True):
    """Who makes a request. It holds no credential, so it may be kept, but its claims may be personal data."""

    kind: str
    """The kind of the credential: ``jwt``, ``api-key`` or ``mtls``."""
    name: str
    """The name of the section ``[auth.NAME]`` that accepted the credential."""
    sub: str | None = None
    """The subject: the claim ``sub`` of a token, the id of an API key, or the name in a client certificate."""
    scopes: tuple[str, ...] = ()
    """The scopes that the credential grants, each once, in its order."""
    claims: Mapping[str, Any] = _NONE
    """The claims of a token as decoded JSON; empty for other kinds. Shared by requests, so it must not be changed."""

    @property
    def values(self) -> dict[str, Any]:
        """The identity as the value ``auth`` of templates and expressions."""
        return {
            "kind": self.kind,
            "name": self.name,
            "sub": self.sub,
            "scopes": list(self.scopes),
            "claims": self.claims,
        }
