"""Inputs of a plan: reads the values of a request that the plan of its route can refer to (``model.Inputs``).

Only what the route needs is read. A body is read only if the plan uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio

from ...core.errors import RequestError
from ...core.model import Inputs, Json
from ..browsers.compression import Compression
from .query import QueryRules
from .request_body import (
    BodyForm,
    check_coding,
    check_media_type,
    decode_whole,
    known_length,
    may_have_body,
    read_body,
    read_coded_body,
)
from .request_fields import RequestFields
from .urlencoded import Names

if TYPE_CHECKING:
    from ..request_context import RequestContext

_SCALARS = (str, int, float, bool)
"""Scalar types of JSON. A converter of werkzeug may make other objects (UUID)."""
_SAFE = frozenset({"GET", "HEAD"})
_NOTHING: Mapping[str, Json] = MappingProxyType({})
_LARGE_BODY = 64 * 1024
_OF_CODED_BODY = frozenset({"content-encoding", "content-length"})
NO_COOKIES: Mapping[str, str] = MappingProxyType({})


def check_no_if_match(method: str, fields: RequestFields) -> None:
    """Check that no request for a change has an If-Match that nobody would evaluate (decision 0039).

    Raises:
        RequestError: 412, it has one. The client asks for the change only if nobody else has changed the resource.
    """
    if "if-match" in fields.by_name and method not in _SAFE:
        raise RequestError(412, "The gateway cannot compare the entity tags of If-Match for this request.")


@dataclass(frozen=True, slots=True)
class InputRules:
    """Reads the inputs of one route's requests: path, declared query parameters, header fields and body."""

    query: QueryRules = field(default_factory=lambda: QueryRules({}))
    """The declared query parameters."""
    body: BodyForm | None = None
    """How the body is decoded; None: the plan does not use the body."""
    form_names: Names | None = None
    """The form fields that the plan uses; None: all."""
    max_body: int = 0
    """Maximum bytes of the body."""
    compression: Compression | None = None
    """The compression of responses, whose entity tags calls must not see; None: there is none."""
    form_lists: frozenset[str] = frozenset()
    """The form fields that become lists."""
    takes_if_match: bool = True
    """Whether the plan takes the client's If-Match into account, or the responder may do so."""

    def read(self, ctx: RequestContext, path: Mapping[str, Any]) -> Inputs:
        """Read all inputs but the body. ``path`` has the values of the rule's variables.

        Raises:
            RequestError: 400, a query parameter is missing or malformed; 412, see ``check_no_if_match``.
        """
        if not self.takes_if_match:
            check_no_if_match(ctx.facts.method, ctx.origin.fields)
        query = self.query.values(self.query.read(ctx.query)) if self.query.declared else {}
        return self._inputs(ctx, path, query)

    async def read_with_body(self, ctx: RequestContext, path: Mapping[str, Any]) -> Inputs:
        """Read all inputs, including the body. Umbel's server or, under another one, ``AsgiRequest`` bounds its time.

        Args:
            path: the values of the rule's variables.

        Raises:
            RequestError: 400 (malformed), 412 (``check_no_if_match``), 413 (over ``max_body``, also once decoded) or
                415 (wrong media type or coding).
            HTTPException: 413 (larger than the application's MAX_CONTENT_LENGTH). Under a server that is not Umbel's
                also 408 (too slow).
            ClientGoneError: the client left in the middle of its body, or the server has sent an error response. Under
                Quart (``QuartBody``) the request's work is cancelled in both cases instead.
        """
        assert self.body is not None
        if not self.takes_if_match:
            check_no_if_match(ctx.facts.method, ctx.origin.fields)
        # Errors in the query are reported before the body is read.
        query = self.query.values(self.query.read(ctx.query))
        fields, charset, length = ctx.origin.fields, "", known_length(ctx.origin.fields)
        coding = check_coding(fields, self.body)
        if may_have_body(fields):
            check_media_type(fields, self.body)
        ctx.body.take_at_most(self.max_body)
        if coding is None:
            raw_body = await read_body(ctx.body, length, self.max_body)
        else:
            raw_body = await read_coded_body(ctx.body, length, self.max_body, coding)
        if raw_body:
            charset = check_media_type(fields, self.body)
        body = await decode_whole(raw_body, self.body, charset, self.form_names, self.max_body, self.form_lists)
        if len(raw_body) > _LARGE_BODY:
            # Decoding took long, and the composition may take as long: other tasks run in between.
            await trio.lowlevel.checkpoint()
        uncoded = self.body != "bytes" and "content-encoding" in fields.by_name
        return self._inputs(ctx, path, query, body, raw_body, uncoded=uncoded)

    def _inputs(
        self,
        ctx: RequestContext,
        path: Mapping[str, Any],
        query: Mapping[str, Json],
        body: Json = None,
        raw_body: bytes = b"",
        *,
        uncoded: bool = False,
    ) -> Inputs:
        """Make the inputs. ``uncoded``: the head has a Content-Encoding that does not hold for ``raw_body``."""
        origin = ctx.origin
        fields = origin.fields
        headers = fields.end_to_end
        if uncoded:
            headers = {name: value for name, value in headers.items() if name not in _OF_CODED_BODY}
        compression = self.compression
        values = path and {name: value if isinstance(value, _SCALARS) else str(value) for name, value in path.items()}
        return Inputs(
            values,
            query,
            headers if compression is None else compression.original_tags(headers, fields),
            body,
            ctx.query,
            fields.cookies if "cookie" in fields.end_to_end else _NOTHING,
            raw_body,
            fields.content_type,
            ctx.facts.request_id,
            origin.via(),
            origin.forwarded_for(),
            origin.client,
            ctx.identity,
        )
