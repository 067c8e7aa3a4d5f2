"""Canonical base64url without padding (RFC 7515 section 2)."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode


def decode_canonical(text: bytes) -> bytes:
    """Decode base64url, and accept only the one text that encodes the result.

    Python's decoder skips foreign characters and ignores the unused bits of the last one (RFC 4648 section 3.5), so
    that several texts have one result. The comparison refuses all but the canonical one, padding included.

    Raises:
        ValueError: the text is not canonical base64url without padding.
    """
    decoded = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    if urlsafe_b64encode(decoded).rstrip(b"=") != text:
        raise ValueError("not canonical base64url without padding")
    return decoded
