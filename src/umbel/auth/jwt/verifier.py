"""Verification of the tokens of one section ``[auth.NAME]``: from the text of a token to an identity or a refusal.

The order is that of the cost and of the trust: the form of the token and its algorithm, the issuer, whose keys are the
only ones that are tried, the signature, and last the other claims. Nothing here waits or does I/O, and nothing raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ...core.identity import Identity
from ..authenticator import Refusal
from .claims import refusal_of_claims, scopes_of
from .compact import BadTokenError, SignedToken, media_type, read_claims, read_token
from .token_cache import REMEMBERED_S, TokenCache, VerifiedToken, estimated_size, expiry_of

if TYPE_CHECKING:
    from .key_set import KeySet


class Keys(Protocol):
    """Source of the keys of an issuer."""

    @property
    def key_set(self) -> KeySet | None:
        """The keys that hold now; None: there are none, or they are too old."""
        ...

    @property
    def renewable(self) -> bool:
        """Whether the keys can be fetched again, so that a key that is missing may come."""
        ...


class IssuerRules(msgspec.Struct, frozen=True):
    """An issuer whose tokens are accepted."""

    keys: Keys
    audience: frozenset[str]
    """The values of ``aud`` of which a token must have one; empty: any."""


class Verifier:
    """Verifier of tokens with a memory of the verified ones.

    Args:
        name: the name of the section.
        issuers: the accepted issuers by the claim ``iss``.
        algorithms: the accepted algorithms.
        types: the accepted values of the header member ``typ``.
        required: the claims that a token must have.
        leeway: the most seconds by which the clocks of issuer and gateway may differ.
        cache_max: the most verified tokens that are remembered.
        wall: the time in seconds since 1970.
        clock: the time of a monotonic clock, in seconds.
    """

    def __init__(
        self,
        name: str,
        issuers: Mapping[str, IssuerRules],
        *,
        algorithms: frozenset[str],
        types: frozenset[str],
        required: tuple[str, ...],
        leeway: float,
        cache_max: int,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._name = name
        self._issuers = issuers
        self._algorithms = algorithms
        self._types = frozenset(map(media_type, types))
        self._required = required
        self._leeway = leeway
        self._cache_max = cache_max
        self._wall = wall
        self._clock = clock
        self.cache = TokenCache(cache_max)
        self.hits = 0
        """Tokens that were found in the memory."""
        self.misses = 0
        """Tokens that were not found there."""

    def verify(self, token: str) -> Identity | Refusal:
        """Verify a token. Never raises."""
        digest = self.cache.digest(token)
        wall, now = self._wall(), self._clock()
        entry = self.cache.get(digest, wall, now)
        if entry is not None:
            if entry.keys is self._issuers[entry.issuer].keys.key_set:
                self.hits += 1
                return entry.identity
            self.cache.remove(digest)
        self.misses += 1
        try:
            signed = read_token(token, self._algorithms, self._types)
            claims = read_claims(signed.payload)
        except BadTokenError as error:
            return Refusal(str(error))
        verified = self._verified(signed, claims, wall, now)
        if isinstance(verified, Refusal):
            return verified
        self.cache.add(digest, verified)
        return verified.identity

    def issuer_of(self, token: str) -> str | None:
        """The accepted issuer that a token names, without any proof; None: it names none of them."""
        try:
            issuer = read_claims(read_token(token, self._algorithms, self._types).payload).get("iss")
        except BadTokenError:
            return None
        return issuer if isinstance(issuer, str) and issuer in self._issuers else None

    def _verified(
        self, signed: SignedToken, claims: dict[str, Any], wall: float, now: float
    ) -> VerifiedToken | Refusal:
        issuer = claims.get("iss")
        rules = self._issuers.get(issuer) if isinstance(issuer, str) else None
        if rules is None or not isinstance(issuer, str):
            return Refusal("The issuer of the token is not accepted.", outcome="unknown-issuer")
        keys = rules.keys.key_set
        if keys is None:
            return Refusal(
                "The keys of the issuer cannot be fetched now.",
                outcome="no-keys",
                unavailable=True,
                keys_may_come=rules.keys.renewable,
            )
        if (refusal := self._refusal_of_signature(signed, rules.keys, keys)) is not None:
            return refusal
        refusal = refusal_of_claims(claims, wall, leeway=self._leeway, audience=rules.audience, required=self._required)
        if refusal is not None:
            return refusal
        scopes = scopes_of(claims)
        if scopes is None:
            return Refusal("The scopes of the token are neither a text nor a list of texts.")
        identity = Identity("jwt", self._name, claims.get("sub"), scopes, claims)
        return VerifiedToken(
            identity,
            issuer,
            keys,
            expiry_of(claims.get("exp"), self._leeway, wall),
            now + REMEMBERED_S,
            estimated_size(signed.payload, claims) if self._cache_max else 0,
        )

    @staticmethod
    def _refusal_of_signature(signed: SignedToken, source: Keys, keys: KeySet) -> Refusal | None:
        """Why no key of the set verifies the signature; None: one does."""
        tried = keys.candidates(signed.key_id, signed.algorithm)
        for key in tried:
            if key.verifies(signed.algorithm, signed.signing_input, signed.signature):
                return None
        if not keys.has(signed.key_id):
            # Keys without an id, if the set has any, were tried. The issuer may have published a new one.
            return Refusal("The key of the token is unknown.", outcome="unknown-key", keys_may_come=source.renewable)
        # A token that names no key may be signed by one that the issuer has published since. That costs no more than an
        # unknown key id: whatever is sent, one fetch per cool-down.
        may_come = signed.key_id is None and source.renewable
        if not tried:
            return Refusal("The key of the token is for another algorithm.", keys_may_come=may_come)
        return Refusal("The signature of the token is not valid.", keys_may_come=may_come)
