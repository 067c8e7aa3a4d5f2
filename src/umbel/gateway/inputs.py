"""From a request to ``model.Inputs``, the validated values that a plan can name.

Called by the views of ``routes.py`` and ``compose.py`` once per request. It reads what the route needs and no more:
a body only where the plan uses one, cookies only where the client sent some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from ..model import Inputs, Json
from .bodies import BodyForm, check_media_type, decode_whole, known_length, may_have_body, read_body
from .exchange import Exchange
from .query import QueryRules
from .urlencoded import Names

_SCALARS = (str, int, float, bool)
_LARGE_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class InputRules:
    """What one route reads of a request."""

    query: QueryRules = field(default_factory=lambda: QueryRules({}))
    body: BodyForm | None = None
    """None: the plan uses no body, and whatever the client sends is not looked at."""
    form_names: Names | None = None
    """The fields of a form that the plan reads; None: all of them."""
    max_body: int = 0

    async def read(self, exchange: Exchange, path: Mapping[str, Any]) -> Inputs:
        """The request's values. How long its body may take is bounded by whoever brings it.

        Raises:
            RequestError: 400, 408, 413 or 415.
        """
        pairs = self.query.read(exchange.query)
        query = self.query.values(pairs)
        origin = exchange.origin
        fields = origin.fields
        raw_body, body, charset = b"", None, ""
        if self.body is not None:
            if may_have_body(fields):
                check_media_type(fields, self.body)
            # An application may have put a request class of its own, whose body has no bound of time to lower.
            if (take_at_most := getattr(exchange.body, "take_at_most", None)) is not None:
                take_at_most(self.max_body)
            raw_body = await read_body(exchange.body, known_length(fields), self.max_body)
            if raw_body:
                charset = check_media_type(fields, self.body)
            body = await decode_whole(raw_body, self.body, charset, self.form_names, self.max_body)
            if len(raw_body) > _LARGE_BODY:
                # What is done with it may take as long: others have their turn in between.
                await trio.lowlevel.checkpoint()
        return Inputs(
            path={name: _scalar(value) for name, value in path.items()},
            query=query,
            headers=fields.end_to_end,
            body=body,
            raw_query=exchange.query,
            cookies=fields.cookies,
            raw_body=raw_body,
            content_type=fields.end_to_end.get("content-type", ""),
            forwarded=origin.always(exchange.facts.request_id),
            forwarded_for=origin.forwarded_for(),
        )


def _scalar(value: Any) -> Json:
    """A path value as JSON: werkzeug's converters may make other objects (uuid)."""
    return value if isinstance(value, _SCALARS) else str(value)
