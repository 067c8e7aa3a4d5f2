"""The library of tokens and keys, joserfc, which comes with ``umbel[auth]`` and is loaded when it is first needed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel


class KeyRule(NamedTuple):
    """What a key must be for an algorithm."""

    kty: str
    """The key type (RFC 7518 section 6.1)."""
    curves: tuple[str, ...] = ()
    """The curves; empty for key types without one."""
    secret_bytes: int = 0
    """The least bytes of a secret (RFC 7518 section 3.2); 0 for public keys."""


KEY_OF: dict[str, KeyRule] = {
    **{f"{family}{bits}": KeyRule("RSA") for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": KeyRule("EC", ("P-256",)),
    "ES384": KeyRule("EC", ("P-384",)),
    "ES512": KeyRule("EC", ("P-521",)),
    "EdDSA": KeyRule("OKP", ("Ed25519", "Ed448")),
    **{f"HS{bits}": KeyRule("oct", (), bits // 8) for bits in (256, 384, 512)},
}
"""What a key must be, by algorithm (RFC 7518 section 3, RFC 8037 section 3.1)."""


@cache
def algorithm_models() -> dict[str, JWSAlgModel]:
    """The implementations of the algorithms of ``KEY_OF``, by name.

    Of joserfc's interfaces, ``JWSAlgModel.verify`` costs least: 20 µs with RS256 and 66 µs with ES256, of which the
    arithmetic of OpenSSL takes nearly all. ``deserialize_compact`` costs 16 µs more, for the checks of the header that
    ``compact.py`` has made already.

    Raises:
        ImportError: the library is not installed.
    """
    from joserfc.jwa import JWS_ALGORITHMS

    return {model.name: model for model in JWS_ALGORITHMS if model.name in KEY_OF}
