"""The express way through a stack: a plain request is admitted, sent and landed without a task of its own.

Made by ``stack.py`` for an upstream whose layers allow it, used by the composition for many calls at once. It holds no
policy: every decision is asked of the layers, in their order, by the same functions that they ask themselves. What
would have to wait for anything but the answer goes the ordinary way.

A task, and the five coroutines of the layers under it, cost a call more than all that they decide. A request of a
composition that waits for ten answers can as well be one task that is told of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..inflight import InFlight, Prepared
from ..messages import Field
from ..model import CallFacts
from .connection import INLINE_MAX
from .errors import BadRequest
from .outgoing import NOT_PLAIN, common_lines, is_plain, plain_head, plain_lines
from .sentoff import ORIGIN, PlainLayers, SentOff

_SIZE_MAX = INLINE_MAX - 1024
"""Bytes of target, fields and body; with what the replica and the attempt add, they are sent at once."""
# What the body and the attempt layer say of every request. They replace what the request says there itself, if that is
# anything else; here it then goes their way.
_GZIP = b"accept-encoding: gzip\r\n"
_TRACE = b"traceparent:"


class Express:
    """Sends requests off through ``layers``; see ``inflight.SendsOff``."""

    def __init__(self, layers: PlainLayers) -> None:
        self._layers = layers
        deadline_header = layers.attempt._deadline_header
        self._deadline = _TRACE if deadline_header is None else deadline_header.lower() + b":"

    def send_off(
        self, prepared: Prepared, facts: CallFacts, arrived: Callable[[InFlight], None], now: float
    ) -> SentOff | None:
        """Admit it, if it is idempotent and small, if it may pass at once, and if its head is an ordinary one."""
        method, target, headers, content, gateway = prepared
        layers = self._layers
        left = facts.deadline - now
        if left <= 0 or not is_plain(method, target):
            return None
        lines, more = self._lines(headers, gateway), layers.attempt.lines(facts, left)
        if lines is None or more is None:
            return None
        size = 0 if content is None else len(content)
        if len(target) + len(lines) + size > _SIZE_MAX:
            return None
        ticket = None
        if layers.breaker is not None and (ticket := layers.breaker.admit(ORIGIN, now)) is None:
            return None
        slots = layers.bulkhead.enter(ORIGIN)
        if slots is None:
            return None
        seat = layers.balance.take(now)
        if seat is None:
            layers.bulkhead.leave(ORIGIN, slots)
            return None
        replica = seat.replica
        head = plain_head(method, replica.base + target, replica.host, lines + more, size)
        request = head if content is None else head + content
        return SentOff(layers, prepared, facts, arrived, request, now, seat, slots, ticket)

    def _lines(self, headers: Sequence[Field], gateway: tuple[tuple[Field, ...], ...]) -> bytes | None:
        """The lines of the fields; None where a layer would have a word in them."""
        try:
            own = common_lines(headers) if isinstance(headers, tuple) else plain_lines(headers)
            if own is None:
                return None
            lines = b"".join((own, *map(common_lines, gateway)))
        except BadRequest:
            return None
        if NOT_PLAIN in lines or _GZIP not in lines or _TRACE in lines or self._deadline in lines:
            return None
        return lines
