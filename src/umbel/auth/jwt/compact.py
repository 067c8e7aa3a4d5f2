"""Strict reader of a signed token in the compact serialization (RFC 7515 section 7.1).

A token has exactly one accepted text: each of its three parts is canonical base64url. So no changed text of a token is
accepted, not even one that decodes to the same bytes. Only the members ``alg``, ``kid``, ``typ``, ``crit`` and ``b64``
of the header are looked at. A key or the address of a key in the header (``jwk``, ``jku``, ``x5u``, ``x5c``, ``x5t``)
is never used: whoever forges a token would bring the key too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from ...composition.decode import MAX_DEPTH, BadBodyError, NotStrictJsonError, decode_strict
from .base64url import decode_canonical

TOKEN_MAX = 16 * 1024
"""The most characters of a token: more than fit into the request heads of common servers and proxies."""


class BadTokenError(Exception):
    """A token cannot be accepted. The message is one sentence for the client, and holds nothing of the token."""


class SignedToken(msgspec.Struct, frozen=True):
    """A token whose signature has not been verified."""

    algorithm: str
    """The header member ``alg``; one of the accepted algorithms."""
    key_id: str | None
    """The header member ``kid``; None: the header has none."""
    payload: bytes
    signing_input: bytes
    """What is signed (RFC 7515 section 2)."""
    signature: bytes


def read_token(text: str, algorithms: Collection[str], types: Collection[str]) -> SignedToken:
    """Read a signed token. Takes linear time; the signature is not verified, and the payload may be anything.

    Args:
        text: the token.
        algorithms: the accepted values of ``alg``.
        types: the accepted values of ``typ``, as ``media_type`` returns them.

    Raises:
        BadTokenError: the text is no signed token, or its header cannot be accepted.
    """
    header, payload, signature, signing_input = _split(text)
    algorithm, key_id = _checked_header(header, algorithms, types)
    return SignedToken(algorithm, key_id, _decoded(payload), signing_input, _decoded(signature))


def read_claims(payload: bytes) -> dict[str, Any]:
    """Decode the claims of a token, which may be forged.

    Raises:
        BadTokenError: the payload is no JSON object, or exceeds a bound.
    """
    return _json_object(payload, "payload")


def _split(text: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the three encoded parts of a token, and its signing input.

    Raises:
        BadTokenError: the text is longer than TOKEN_MAX, is not ASCII, or has not three parts.
    """
    if len(text) > TOKEN_MAX:
        raise BadTokenError(f"The token is longer than {TOKEN_MAX} characters.")
    try:
        encoded = text.encode("ascii")
    except UnicodeEncodeError:
        raise BadTokenError("The token has characters that no token has.") from None
    parts = encoded.split(b".", 3)
    if len(parts) != 3:
        raise BadTokenError("The token has not the three parts of a signed token.")
    header, payload, signature = parts
    return header, payload, signature, encoded[: len(header) + 1 + len(payload)]


def _checked_header(part: bytes, algorithms: Collection[str], types: Collection[str]) -> tuple[str, str | None]:
    """Return ``alg`` and ``kid`` of an encoded header. The algorithm is checked before anything else of the token."""
    header = _json_object(_decoded(part), "header")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise BadTokenError("The algorithm of the token is not accepted.")
    if "crit" in header or "b64" in header:
        # RFC 7515 section 4.1.11: extensions that are not understood. RFC 7797 section 7: JWTs must not use b64.
        raise BadTokenError("The token has critical extensions, which are not supported.")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or media_type(kind) not in types:
        raise BadTokenError("The type of the token is not accepted.")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise BadTokenError("The key id of the token is not a text.")
    return algorithm, key_id


def media_type(typ: str) -> str:
    """The value of ``typ`` in the form in which two values are compared (RFC 7515 section 4.1.9)."""
    return typ.lower().removeprefix("application/")


def _decoded(part: bytes) -> bytes:
    try:
        return decode_canonical(part)
    except ValueError:
        raise BadTokenError("The token is not encoded in base64url as RFC 7515 requires.") from None


def _json_object(content: bytes, part: str) -> dict[str, Any]:
    """Decode a JSON object. Of members with one name the last one counts (RFC 7515 section 4)."""
    try:
        value = decode_strict(content)
    except BadBodyError as error:
        # msgspec says "invalid" of numbers that it cannot hold (docs/auth.md, Limits of credentials).
        if not isinstance(error, NotStrictJsonError) or isinstance(error.__cause__, msgspec.ValidationError):
            reason = f"it is nested more than {MAX_DEPTH} deep, or has a number that is too large"
            raise BadTokenError(f"The {part} of the token exceeds a bound: {reason}.") from None
        value = None
    if not isinstance(value, dict):
        raise BadTokenError(f"The {part} of the token is not a JSON object.")
    return value
