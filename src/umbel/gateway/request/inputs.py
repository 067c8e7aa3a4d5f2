"""From a request to ``model.Inputs``, the validated values that a plan can name.

It reads what the route needs and no more:
a body only where the plan uses one, cookies only where the client sent some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import trio

from ...core.model import Inputs, Json
from ..request_context import RequestContext
from .query import QueryRules
from .request_body import BodyForm, check_media_type, decode_whole, known_length, may_have_body, read_body
from .urlencoded import Names

_SCALARS = (str, int, float, bool)
"""What JSON has; werkzeug's converters may make other objects (uuid)."""
_NOTHING: Mapping[str, Json] = MappingProxyType({})
_LARGE_BODY = 64 * 1024
NO_COOKIES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class InputRules:
    """What one route reads of a request."""

    query: QueryRules = field(default_factory=lambda: QueryRules({}))
    body: BodyForm | None = None
    """None: the plan uses no body, and whatever the client sends is not looked at."""
    form_names: Names | None = None
    """The fields of a form that the plan reads; None: all of them."""
    max_body: int = 0

    def read(self, ctx: RequestContext, path: Mapping[str, Any]) -> Inputs:
        """The request's values but for its body.

        Raises:
            RequestError: 400.
        """
        query = self.query.values(self.query.read(ctx.query)) if self.query.declared else {}
        return self._inputs(ctx, path, query)

    async def read_with_body(self, ctx: RequestContext, path: Mapping[str, Any]) -> Inputs:
        """The request's values. How long its body may take is bounded by whoever brings it.

        Raises:
            RequestError: 400, 408, 413 or 415.
            ClientGoneError: the client left in the middle of its body.
        """
        assert self.body is not None
        query = self.query.values(self.query.read(ctx.query))  # What is wrong there is reported before a body is read.
        fields, charset = ctx.origin.fields, ""
        if may_have_body(fields):
            check_media_type(fields, self.body)
        ctx.body.take_at_most(self.max_body)
        raw_body = await read_body(ctx.body, known_length(fields), self.max_body)
        if raw_body:
            charset = check_media_type(fields, self.body)
        body = await decode_whole(raw_body, self.body, charset, self.form_names, self.max_body)
        if len(raw_body) > _LARGE_BODY:
            # What is done with it may take as long: others have their turn in between.
            await trio.lowlevel.checkpoint()
        return self._inputs(ctx, path, query, body, raw_body)

    def _inputs(
        self,
        ctx: RequestContext,
        path: Mapping[str, Any],
        query: Mapping[str, Json],
        body: Json = None,
        raw_body: bytes = b"",
    ) -> Inputs:
        origin = ctx.origin
        fields = origin.fields
        values = path and {name: value if isinstance(value, _SCALARS) else str(value) for name, value in path.items()}
        return Inputs(
            values,
            query,
            fields.end_to_end,
            body,
            ctx.query,
            fields.cookies if "cookie" in fields.end_to_end else _NOTHING,
            raw_body,
            fields.content_type,
            ctx.facts.request_id,
            origin.via(),
            origin.forwarded_for(),
        )
