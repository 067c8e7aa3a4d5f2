"""Spans of a request, made from its timeline: the request, its calls, and their attempts.

Names and attributes are those of OpenTelemetry's semantic conventions for HTTP where they have one
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/); all others begin with ``umbel.``. The URL of an attempt
is left out, except for host and port: the gateway keeps no targets of its upstream requests, which may hold secrets.

A span that was cancelled is no error, unless a time limit has passed: ``umbel.cancelled`` has the reason.

This module needs ``umbel[otel]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ...core.failure_kinds import CUT
from ..request_counts import METHODS, OTHER_METHOD
from ..timeline import AttemptLine, CallLine, Timeline, new_span_id

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PORTS = {"http": 80, "https": 443}
_CUT = frozenset(map(str, CUT))


class SpanMaker:
    """Makes the spans of requests.

    Args:
        resource: what describes the process.
        version: the version of Umbel.
    """

    def __init__(self, resource: Resource, version: str) -> None:
        self._resource = resource
        self._scope = InstrumentationScope("umbel", version)

    def spans_of(self, timeline: Timeline) -> list[ReadableSpan]:
        """The spans of a request. Those of its calls are its children, those of attempts the children of their call."""
        made = _Spans(self, timeline)
        return [made.server(), *made.calls()]

    def span(self, **fields: Any) -> ReadableSpan:
        """One span with the resource and the scope of all; None and empty attributes are left out."""
        given = fields.pop("attributes")
        attributes = {name: value for name, value in given.items() if value is not None and value not in ("", ())}
        return ReadableSpan(resource=self._resource, instrumentation_scope=self._scope, attributes=attributes, **fields)


def span_count(timeline: Timeline) -> int:
    """How many spans ``spans_of`` makes."""
    return 1 + sum([1 + len(call.attempts) for call in timeline.calls if call.start_ms is not None])


class _Spans:
    """Makes the spans of one request."""

    def __init__(self, maker: SpanMaker, timeline: Timeline) -> None:
        self._maker = maker
        self._timeline = timeline
        self._trace_id = int(timeline.trace_id, 16)
        self._server = self._context(timeline.span_id)

    def _context(self, span_id: str) -> SpanContext:
        return SpanContext(self._trace_id, int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)

    def _at(self, milliseconds: float) -> int:
        """Nanoseconds since the epoch."""
        return round(self._timeline.received * 1e6 + milliseconds * 1e3) * 1000

    def server(self) -> ReadableSpan:
        line = self._timeline
        method = line.method if line.method in METHODS else OTHER_METHOD
        shown = method if method != OTHER_METHOD else "HTTP"
        parent = None
        if line.parent_id:
            parent = SpanContext(self._trace_id, int(line.parent_id, 16), is_remote=True, trace_flags=_SAMPLED)
        failed = line.outcome == "failed" and (line.status >= 500 or line.status < 400)
        return self._maker.span(
            name=f"{shown} {line.route}" if line.route else shown,
            context=self._server,
            parent=parent,
            kind=SpanKind.SERVER,
            start_time=self._at(0.0),
            end_time=self._at(line.duration_ms),
            status=Status(StatusCode.ERROR, line.reason or None) if failed else Status(StatusCode.UNSET),
            events=tuple(self._events()),
            attributes={
                "http.request.method": method,
                "http.request.method_original": line.method if method == OTHER_METHOD else None,
                "url.path": line.path,
                "url.scheme": line.scheme,
                "http.route": line.route,
                "http.response.status_code": line.status,
                "client.address": line.client,
                "error.type": (line.kind or str(line.status)) if failed else None,
                "umbel.request_id": line.request_id,
                "umbel.outcome": line.outcome,
                "umbel.cancelled": line.reason or line.kind if line.outcome == "cancelled" else None,
                "umbel.own_ms": line.own_ms,
                "umbel.sampled": line.sampled,
            },
        )

    def _events(self) -> Iterator[Event]:
        line = self._timeline
        if line.deadline_reached and line.deadline_ms is not None:
            yield Event("umbel.deadline", {"umbel.deadline_ms": line.deadline_ms}, self._at(line.deadline_ms))
        if line.outcome == "partial":
            missing = tuple([call.name for call in line.calls if call.outcome not in ("ok", "skipped")])
            yield Event("umbel.partial", {"umbel.missing": missing}, self._at(line.duration_ms))

    def calls(self) -> Iterator[ReadableSpan]:
        for call in self._timeline.calls:
            if call.start_ms is not None:
                context = self._context(call.span_id)
                yield self._call(call, call.start_ms, context)
                for attempt in call.attempts:
                    yield self._attempt(attempt, call, context)

    def _call(self, call: CallLine, start_ms: float, context: SpanContext) -> ReadableSpan:
        failed = call.outcome in ("failed", "partial")
        return self._maker.span(
            name=f"call {call.name}",
            context=context,
            parent=self._server,
            kind=SpanKind.INTERNAL,
            start_time=self._at(start_ms),
            end_time=self._at(max(call.end_ms, start_ms)),
            status=Status(StatusCode.ERROR, call.reason or None) if failed else Status(StatusCode.UNSET),
            attributes={
                "umbel.call": call.name,
                "umbel.upstream": call.upstream,
                "umbel.needs": call.needs,
                "umbel.outcome": call.outcome,
                "umbel.critical": call.critical,
                "umbel.cancelled": call.reason if call.outcome == "cancelled" else None,
                "error.type": call.kind if failed else None,
            },
        )

    def _attempt(self, line: AttemptLine, call: CallLine, parent: SpanContext) -> ReadableSpan:
        method = line.method if line.method in METHODS else OTHER_METHOD
        error: str | None = line.kind
        if line.outcome == "ok":
            error = str(line.status) if line.status is not None and line.status >= 400 else None
        is_error = error is not None and error not in _CUT
        where = urlsplit(line.replica)
        context = self._context(line.span_id)
        links: tuple[Link, ...] = ()
        if line.trace_id or line.coalesced or not int(line.span_id, 16):
            # A shared call has sent ids of its own, and several calls of this request may share it.
            context = self._context(new_span_id())
            if line.trace_id:
                links = (Link(SpanContext(int(line.trace_id, 16), int(line.span_id, 16), False, _SAMPLED)),)
        return self._maker.span(
            name=method if method != OTHER_METHOD else "HTTP",
            context=context,
            parent=parent,
            kind=SpanKind.CLIENT,
            start_time=self._at(line.start_ms),
            end_time=self._at(max(line.end_ms, line.start_ms)),
            status=Status(StatusCode.ERROR, line.reason or None) if is_error else Status(StatusCode.UNSET),
            links=links,
            attributes={
                "http.request.method": method,
                "http.request.method_original": line.method if method == OTHER_METHOD else None,
                "http.request.resend_count": line.resend or None,
                "http.response.status_code": line.status,
                "server.address": where.hostname,
                "server.port": where.port or _PORTS.get(where.scheme),
                "error.type": error,
                "umbel.call": call.name,
                "umbel.upstream": call.upstream,
                "umbel.replica": line.replica,
                "umbel.cause": line.cause,
                "umbel.item": line.item,
                "umbel.cancelled": line.reason if line.outcome == "cancelled" else None,
                "umbel.connection.reused": line.reused,
                "umbel.coalesced": line.coalesced or None,
                "umbel.critical": line.critical,
                **{f"umbel.{phase.name}_ms": round(phase.end_ms - phase.start_ms, 3) for phase in line.phases},
            },
        )
