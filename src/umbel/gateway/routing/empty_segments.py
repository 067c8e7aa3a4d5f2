"""Empty segments in a path (``/a//b``): refused where another route has the path without them.

A route for all paths takes ``/admin//x`` although there is a route ``/admin/<path:rest>``, whose variable begins with a
character that is no slash. Many servers read both paths alike, so an upstream behind the route for all paths would
answer what the other route protects.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from werkzeug.routing import MapAdapter

EMPTY_SEGMENTS = "The path holds an empty segment, and another route has the path without it."
"""The detail of the refusal of such a path."""
_SLASHES = re.compile("//+")


def belongs_to_another_route(adapter: MapAdapter, path: str, method: str) -> bool:
    """Whether the decoded ``path`` has empty segments and a route, and without them another route, or none.

    A path that werkzeug redirects to its form without empty segments has no route.
    """
    merged = _SLASHES.sub("/", path)
    if merged == path or path.startswith("//"):
        return False
    endpoint = _endpoint(adapter, path, method)
    return endpoint is not None and endpoint != _endpoint(adapter, merged, method)


def _endpoint(adapter: MapAdapter, path: str, method: str) -> Any:
    try:
        return adapter.match(path, method)[0]
    except HTTPException:
        return None
