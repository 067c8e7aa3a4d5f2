"""ETags of composed responses (RFC 9110 section 8.8)."""

from __future__ import annotations

from hashlib import blake2b

from werkzeug.http import parse_etags

NO_STORE = "no-store"


def etag_of(body: bytes) -> str:
    """The strong ETag of a body, including its quotes. All workers make the same tag of the same bytes."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` matches ``etag`` (weak comparison, RFC 9110 section 13.1.2)."""
    if not if_none_match:
        return False
    tags = parse_etags(if_none_match)
    return tags.star_tag or tags.contains_weak(etag.removeprefix("W/").strip('"'))
