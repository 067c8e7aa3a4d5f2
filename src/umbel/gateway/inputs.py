"""From Quart's request to ``model.Inputs``, the validated values that a plan can name.

Called by the views of ``routes.py`` and ``compose.py`` once per request. It reads what the route needs and no more:
a body only where the plan uses one, cookies only where the client sent some.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quart.wrappers import Request

from ..model import Inputs, Json
from .bodies import BodyForm, check_media_type, decode_body, may_have_body, read_body
from .exchange import Exchange
from .query import QueryRules, parse_query

_SCALARS = (str, int, float, bool)


@dataclass(frozen=True, slots=True)
class InputRules:
    """What one route reads of a request."""

    query: QueryRules = field(default_factory=lambda: QueryRules({}))
    body: BodyForm | None = None
    """None: the plan uses no body, and whatever the client sends is not looked at."""
    max_body: int = 0

    async def read(
        self, request: Request, exchange: Exchange, path: Mapping[str, Any], deadline: float = math.inf
    ) -> Inputs:
        """The request's values. The body must arrive before ``deadline`` (absolute).

        Raises:
            RequestError: 400, 408, 413 or 415.
        """
        pairs = parse_query(request.query_string)
        query = self.query.values(pairs)
        raw_body, body = b"", None
        if self.body is not None:
            if may_have_body(request):
                check_media_type(request, self.body)
            raw_body = await read_body(request, self.max_body, deadline)
            if raw_body:
                check_media_type(request, self.body)
            body = decode_body(raw_body, self.body)
        origin = exchange.origin
        headers = _fields(origin.headers)
        return Inputs(
            path={name: _scalar(value) for name, value in path.items()},
            query=query,
            headers=headers,
            body=body,
            raw_query=pairs,
            cookies=_cookies(headers["cookie"]) if "cookie" in headers else {},
            raw_body=raw_body,
            content_type=headers.get("content-type", ""),
            forwarded=origin.always(exchange.facts.request_id),
            forwarded_for=origin.forwarded_for(),
        )


def _fields(headers: Any) -> dict[str, str]:
    """Field values by lower-case name; repeated ones joined as RFC 9110 section 5.3 says (Cookie: RFC 9113 8.2.3)."""
    fields: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name in fields:
            value = f"{fields[name]}{'; ' if name == 'cookie' else ', '}{value}"
        fields[name] = value
    return fields


def _cookies(field: str) -> dict[str, str]:
    """The cookies of the client by name, each value as it stands; of several of one name the first.

    Quart's reading undoes the escapes of a quoted value. There ``\\073`` becomes a semicolon, so that one cookie that
    a plan names would go upstream as two.
    """
    cookies: dict[str, str] = {}
    for pair in field.split(";"):
        name, mark, value = pair.partition("=")
        if mark:
            cookies.setdefault(name.strip(" \t"), value.strip(" \t"))
    return cookies


def _scalar(value: Any) -> Json:
    """A path value as JSON: werkzeug's converters may make other objects (uuid)."""
    return value if isinstance(value, _SCALARS) else str(value)
