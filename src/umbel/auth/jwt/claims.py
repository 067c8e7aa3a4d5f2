"""Checks of the claims of a token whose signature is verified (RFC 7519 section 4.1, RFC 9068 section 4)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..authenticator import Refusal


def refusal_of_claims(
    claims: Mapping[str, Any],
    now: float,
    *,
    leeway: float,
    audience: Collection[str],
    required: Sequence[str],
) -> Refusal | None:
    """Why the claims of a token do not let it in; None: they do.

    Args:
        claims: the claims.
        now: the time in seconds since 1970.
        leeway: the most seconds by which the clocks of issuer and gateway may differ.
        audience: the values of which ``aud`` must have one; empty: any.
        required: the names of claims that must be there, and not null.
    """
    for name in required:
        if claims.get(name) is None:
            return Refusal(f"The token has not every claim that is required ({_shown(name)}).")
    if (refusal := _refusal_of_times(claims, now, leeway)) is not None:
        return refusal
    sub = claims.get("sub")
    if sub is not None and not isinstance(sub, str):
        return Refusal("The claim sub of the token is not a text.")
    found = claims.get("aud")
    named = [found] if isinstance(found, str) else found
    if named is not None and not _are_texts(named):
        return Refusal("The claim aud of the token is neither a text nor a list of texts.")
    if audience and not any(each in audience for each in named or ()):
        return Refusal("The token is for another audience.")
    return None


def _shown(name: str) -> str:
    """A name of the configuration for a sentence that must be ASCII without quotes."""
    return "".join(char for char in name if char.isascii() and char.isprintable() and char not in '"\\')


def _refusal_of_times(claims: Mapping[str, Any], now: float, leeway: float) -> Refusal | None:
    """Check exp, nbf and iat. Integers of any size are compared with floats, never converted to them."""
    for name in ("exp", "nbf", "iat"):
        # A bool is an int in Python, but no number in JSON.
        if (value := claims.get(name)) is not None and type(value) not in (int, float):
            return Refusal(f"The claim {name} of the token is not a number.")
    if (expires := claims.get("exp")) is not None and expires <= now - leeway:
        return Refusal("The token has expired.", outcome="expired")
    if (begins := claims.get("nbf")) is not None and begins > now + leeway:
        return Refusal("The token is not valid yet.")
    if (issued := claims.get("iat")) is not None and issued > now + leeway:
        return Refusal("The token was issued in the future.")
    return None


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def scopes_of(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The scopes that a token grants, each once, in their order; None: the claims are malformed.

    ``scope`` is a text with spaces (RFC 8693 section 4.2) or a list; so is ``scp``, which some issuers write instead.
    """
    found: dict[str, None] = {}
    for name in ("scope", "scp"):
        value = claims.get(name)
        if isinstance(value, str):
            found |= dict.fromkeys(each for each in value.split(" ") if each)
        elif isinstance(value, list) and _are_texts(value):
            found |= dict.fromkeys(value)
        elif value is not None:
            return None
    return tuple(found)
