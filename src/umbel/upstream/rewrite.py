"""A copy of a request with some of it replaced: how a layer changes what it passes on.

Used by the layers. The request that a layer was given is never touched: a retry or a hedge sends it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx


def rewritten(
    request: httpx.Request,
    fields: Mapping[bytes, bytes],
    *,
    url: httpx.URL | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> httpx.Request:
    """``request`` with ``fields`` (lower-case names) instead of its own of those names; the body is shared."""
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in fields]
    headers += fields.items()
    return httpx.Request(
        request.method,
        url or request.url,
        headers=headers,
        stream=request.stream,
        extensions={**request.extensions, **extensions} if extensions else request.extensions,
    )
