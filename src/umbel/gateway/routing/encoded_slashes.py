"""Encoded slashes (``%2F``) in the values of a path, for routes that keep them (``encoded_slash = "keep"``).

werkzeug matches decoded paths, in which an encoded slash would separate two segments. So a path is matched with NUL in
the place of each encoded slash: no other path holds NUL, because ``%00`` is always refused. After the match the values
of the rule's variables get the slashes. A template encodes them again, so a value stays one segment.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, cast
from urllib.parse import unquote, unquote_to_bytes

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter, RequestRedirect

_ENCODED = re.compile(rb"%2[Ff]")
_MARK = "\0"

holds_encoded_slash = _ENCODED.search
"""Finds an encoded slash in a raw path; None if there is none."""


def path_to_match(raw: bytes) -> str:
    """The decoded path with NUL in the place of each encoded slash.

    It never raises, because the response to a path that ``check_path`` refuses has the fields of the path's routes too.
    """
    return unquote_to_bytes(_ENCODED.sub(b"%00", raw)).decode("utf-8", "replace")


def with_slashes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a rule's variables, with slashes for the NULs."""
    return {name: value.replace(_MARK, "/") if isinstance(value, str) else value for name, value in values.items()}


def keeps_slashes(adapter: MapAdapter, path: str, method: str, kept: Collection[str]) -> bool:
    """Whether the route of a path (``path_to_match``) and method is one of the endpoints ``kept``.

    If no route of the path has the method, whether all routes of the path are: the answer is then 405. If werkzeug
    redirects to another form of the path, such as the one with a slash at its end, the route of that path counts.
    """
    try:
        return _endpoint(adapter, path, method) in kept
    except RequestRedirect as error:
        moved = unquote(error.new_url.partition("://")[2].partition("?")[0].partition("/")[2])
        with suppress(HTTPException):
            return _endpoint(adapter, f"/{moved}", method) in kept
        return False
    except MethodNotAllowed as error:
        return all(keeps_slashes(adapter, path, name, kept) for name in error.valid_methods or ())
    except HTTPException:
        return False


def _endpoint(adapter: MapAdapter, path: str, method: str) -> Any:
    return adapter.match(path, method, return_rule=True, query_args="")[0].endpoint


def url_with_slashes(url: str) -> str:
    """The URL of a redirect from a path of ``path_to_match``, with encoded slashes for the NULs of its path."""
    path, mark, query = url.partition("?")
    return path.replace("%00", "%2F") + mark + query


class SlashAdapter(MapAdapter):
    """Adapter for a request whose path holds encoded slashes. ``path`` is the path to match by ``inner``."""

    def __init__(self, inner: MapAdapter, path: str) -> None:
        vars(self).update(vars(inner))
        self._inner = inner
        self._path = path

    def match(self, path_info: str | None = None, *args: Any, **options: Any) -> Any:
        """As werkzeug's method."""
        path = self._path if path_info is None else path_info
        try:
            found, values = cast("Any", self._inner.match)(path, *args, **options)
        except RequestRedirect as error:
            error.new_url = url_with_slashes(error.new_url)
            raise
        return found, with_slashes(values)
