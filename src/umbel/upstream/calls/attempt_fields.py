"""Field lines that attempts add to the request of their call: traceparent, tracestate and the deadline header."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from ..pool.request_head import lines_of_blocks

if TYPE_CHECKING:
    from ...core.call import CallContext, PreparedRequest
    from ...core.http.header_field import Field
    from .client_interface import ClientInterface


def lines_of_request(
    client: ClientInterface, gateway: tuple[tuple[Field, ...], ...], context: CallContext, now: float
) -> tuple[bytes | None, bytes | None, bytes]:
    """Encode the field lines that the attempts of one inbound request at one time have in common.

    With an inbound request, also stores them in ``client.latest_lines``. The complete lines of an attempt are
    ``common`` (or the gateway's lines and ``before``), the span id in 16 hexadecimal digits, and ``after``.

    Args:
        gateway: fields that the gateway adds, as in ``PreparedRequest.gateway``.
        now: time from which the deadline header counts.

    Returns:
        common: lines of the gateway's fields, then ``traceparent`` up to the span id. None: use ``before``.
        before: ``traceparent`` up to the span id; empty without an inbound request. None: use ``attempt_fields``.
        after: the rest of ``traceparent``, then the line of the deadline header.
    """
    request, header, left = context.request, client.deadline_header, context.deadline - now
    if request is None:
        return None, b"", b""
    common: bytes | None = None
    before: bytes | None = None
    after = _end_of_parent(request.trace.flags)
    if header is not None and left != math.inf:
        after = b"%b%b: %d\r\n" % (after, header, int(left * 1000) or 1)
    if not request.trace.state:
        before = f"traceparent: 00-{request.trace.trace_id}-".encode("ascii")
        lines = lines_of_blocks(gateway, client.attempt_prefixes)
        common = None if lines is None else lines + before
    client.latest_lines = request, gateway, now, context.deadline, common, before, after
    return common, before, after


def fields_and_lines(
    client: ClientInterface, prepared: PreparedRequest, context: CallContext, now: float, span: int
) -> tuple[list[Field], bytes]:
    """All fields of an attempt's request but Host, in two forms: fields, and the encoded lines of the others.

    The lines are those that need no check: usually those of the gateway's and the attempt's fields. A field of
    ``prepared`` that an attempt writes is left out.

    Args:
        now, span: as ``attempt_fields``.
    """
    common, _, after = lines_of_request(client, prepared.gateway, context, now)
    if common is None:
        added = attempt_fields(context, client.deadline_header, now, span)
        replaced = {b"host", *(field[1] for field in added)}
        return [*(field for field in prepared.fields if field[1] not in replaced), *added], b""
    own = (b"host", b"traceparent", None if context.deadline == math.inf else client.deadline_header)
    return [field for field in prepared.headers if field[1] not in own], b"%b%016x%b" % (common, span, after)


@lru_cache(maxsize=256)
def _end_of_parent(flags: str) -> bytes:
    return f"-{flags}\r\n".encode("ascii")


def attempt_fields(context: CallContext, deadline_header: bytes | None, now: float, span: int) -> list[Field]:
    """Header fields that an attempt adds: traceparent, tracestate and the deadline header in milliseconds.

    Args:
        context: context of the call; without an inbound request there are no such fields.
        now: time from which the deadline header counts.
        span: the attempt's span id; not 0, which is invalid (W3C Trace Context section 3.2.2.4).
    """
    request = context.request
    if request is None:
        return []
    values = {b"traceparent": request.trace.header(f"{span:016x}").encode("ascii")}
    if request.trace.state:
        values[b"tracestate"] = request.trace.state.encode("ascii")
    if deadline_header is not None and context.deadline < math.inf:
        values[deadline_header] = b"%d" % max(1, int((context.deadline - now) * 1000))
    return [(name, name, value) for name, value in values.items()]
