"""A copy of a request with some of it replaced: how a layer changes what it passes on.

Used by the layers. The request that a layer was given is never touched: a retry or a hedge sends it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from ..messages import copied, fields_of


def rewritten(
    request: httpx.Request,
    fields: Mapping[bytes, bytes],
    *,
    url: httpx.URL | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> httpx.Request:
    """``request`` with ``fields`` (lower-case names) instead of its own of those names; the body is shared."""
    kept = [field for field in fields_of(request.headers) if field[1] not in fields]
    kept += [(name, name, value) for name, value in fields.items()]
    merged = {**request.extensions, **extensions} if extensions else dict(request.extensions)
    return copied(request, kept, url, merged)
