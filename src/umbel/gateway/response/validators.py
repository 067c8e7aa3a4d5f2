"""ETags of composed and static responses (RFC 9110 section 8.8), and the conditions of requests about them.

Decision 0039 says which conditions the gateway evaluates.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from werkzeug.http import parse_etags

from ...core.errors import RequestError

if TYPE_CHECKING:
    from ..request_context import RequestContext

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


def check_if_match(ctx: RequestContext, etag: str) -> None:
    """Check that If-Match, which the request must have, names ``etag`` (strong comparison, RFC 9110 section 13.1.1).

    Raises:
        RequestError: 412, it does not.
    """
    fields = ctx.origin.fields
    headers = fields.by_name if ctx.compression is None else ctx.compression.original_tags(fields.by_name, fields)
    tags = parse_etags(headers["if-match"])
    if not tags.star_tag and (etag.startswith("W/") or not tags.is_strong(etag.strip('"'))):
        ctx.completed = None
        raise RequestError(412, "The answer has another entity tag than If-Match names.")
