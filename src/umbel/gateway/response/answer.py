"""Response of a composition: makes a reply (status, fields, body) of the composition's result. Does not wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec
from werkzeug.datastructures import Headers

from ...composition.answer.result import Result
from ...core.http.header_field import raw_value
from ...core.inbound import PreparedFields, ResponseFields
from ...core.model import Failure
from ..request.request_fields import Field
from ..request_context import RequestContext
from .diagnostic_headers import proxy_status, server_timing
from .problems import problem_reply, with_retry_after
from .reply import BODILESS, KRAKEND_COMPLETED, Reply, encoded
from .route_fields import RouteFields
from .validators import NO_STORE, check_if_match, etag_of, not_modified

Expose = Literal["full", "completed", "none"]

_SAFE = frozenset({"GET", "HEAD"})
_BODILESS = BODILESS | {205}
_JSON: Field = (b"content-type", b"application/json")
_NO_STORE: Field = (b"cache-control", NO_STORE.encode())
_encode = msgspec.json.Encoder().encode


class AnswerRules:
    """Rules of a route for the header fields of its responses.

    Args:
        vary: the names of request fields that the route's plan reads; Accept is added.
        etag: whether a complete response with status 200 to GET or HEAD gets an ETag of its body.
        expose: the diagnostic fields that clients get.
        krakend_compat: whether to send KrakenD's field.
    """

    def __init__(
        self, vary: Iterable[str] = (), *, etag: bool = True, expose: Expose = "full", krakend_compat: bool = False
    ) -> None:
        self.vary = ", ".join(dict.fromkeys(name.title() for name in ("accept", *vary)))
        self.etag = etag
        self.expose = expose
        self.krakend_compat = krakend_compat and expose != "none"
        """Whether every response of the route has KrakenD's field, also error responses without composition."""
        self._own: dict[tuple[bool, ...], RouteFields] = {}
        self._diagnostics: dict[tuple[bool, ...], PreparedFields] = {}

    def vary_on(self, more: Sequence[str]) -> bytes:
        """The value of Vary, with the names ``more`` of further request fields."""
        names = dict.fromkeys((*self.vary.split(", "), *(name.title() for name in more)))
        return ", ".join(names).encode()

    def own_fields(self, *, varies: bool, cached: bool, typed: bool, tagged: bool, sized: bool) -> RouteFields:
        """The fields of a response without those about its calls. The arguments say which it has.

        The values of Vary (if ``varies``), Cache-Control, ETag and Content-Length are its own.
        """
        key = varies, cached, typed, tagged, sized
        known = self._own.get(key)
        if known is None:
            fields: list[tuple[bytes, bytes | None]] = [(b"vary", None if varies else self.vary.encode())]
            fields += [(b"cache-control", None)] if cached else []
            fields += [_JSON] if typed else []
            fields += [(b"etag", None)] if tagged else []
            fields += [(b"content-length", None)] if sized else []
            known = self._own[key] = RouteFields(fields)
        return known

    def diagnostic_fields(self, *, completed: bool, failed: bool) -> PreparedFields:
        """The fields about the calls of a response. Proxy-Status (if ``failed``) and Server-Timing have own values."""
        key = completed, failed
        known = self._diagnostics.get(key)
        if known is None:
            whole = b"true" if completed else b"false"
            fields: list[tuple[bytes, bytes | None]] = [(b"umbel-completed", whole)]
            fields += [(KRAKEND_COMPLETED, whole)] if self.krakend_compat else []
            fields += [(b"proxy-status", None)] if failed else []
            fields += [(b"server-timing", None)] if self.expose == "full" else []
            known = self._diagnostics[key] = PreparedFields(fields)
        return known


def answer(result: Result, rules: AnswerRules, ctx: RequestContext) -> Reply:
    """Make the reply for ``result``, and write the results for the access record into ``ctx``.

    The reply is a 304 if the request's If-None-Match names the ETag of the response.
    """
    keep_result(result, ctx)
    if result.failure is not None:
        reply = _failed(result, result.failure, ctx.facts.request_id)
    else:
        reply = _composed(result, rules, ctx)
    if rules.expose != "none":
        _add_diagnostics(reply, result, rules)
    return reply


def keep_result(result: Result, ctx: RequestContext) -> None:
    """Write the results for the access record into the request context."""
    ctx.outcomes = result.outcomes
    ctx.completed = result.completed
    ctx.own_ms = result.own_ms
    if result.completed:
        return
    if result.failure is not None:
        ctx.kind, ctx.detail = result.failure.kind, result.failure.detail
        ctx.of_client = result.failure.of_client
        ctx.limit = result.failure.limit
    else:
        incomplete = result.incomplete
        ctx.of_client = bool(incomplete) and all(outcome.of_client for outcome in incomplete)


def _composed(result: Result, rules: AnswerRules, ctx: RequestContext) -> Reply:
    status, body, asked = result.status, b"", ctx.origin.fields.by_name
    values: tuple[bytes, ...] = ()
    varies, caching, typed, tagged = bool(result.headers or result.vary), result.cache_control, False, False
    if varies:
        values = (rules.vary_on((*result.vary, *_said_to_vary(result.headers))),)
    if caching is not None:
        values += (raw_value(caching) or NO_STORE.encode(),)
    if status not in _BODILESS:
        body, typed = _encode(result.answer), True
        if status == 200 and result.completed and ctx.facts.method in _SAFE:
            etag: str | None = None
            if result.validated:
                # The ETag of the upstream's response, which is the whole content of this response.
                etag = next((value for name, value in result.headers if name == "etag"), None)
            elif rules.etag:
                etag, tagged = etag_of(body), True
                values += (etag.encode(),)
                if "if-match" in asked:
                    check_if_match(ctx, etag)
            if etag is not None and "if-none-match" in asked and not_modified(asked["if-none-match"], etag):
                status, body, typed = 304, b"", False
    sized = status not in BODILESS
    if sized:
        values += (b"%d" % len(body),)
    prepared = rules.own_fields(varies=varies, cached=caching is not None, typed=typed, tagged=tagged, sized=sized)
    fields = ResponseFields(prepared, values)
    if result.headers:
        return Reply(status, _merged(result.headers, fields), body, named=True)
    return Reply(status, fields, body)


def _said_to_vary(headers: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The names of request fields in the Vary fields among ``headers``."""
    for name, value in headers:
        if name == "vary" and value.isascii():
            yield from filter(None, (member.strip(" \t") for member in value.split(",")))


def _merged(headers: Iterable[tuple[str, str]], ours: Iterable[Field]) -> list[Field]:
    """The fields of the route, then ``ours``. A field in ``ours`` replaces a field of the route with the same name."""
    merged = Headers()
    for name, value in headers:
        merged.add(name, value)
    for field, content in ours:
        merged[field.decode()] = content.decode("latin-1")
    for name in ("content-length", "content-type"):
        # Without content the route's type and length do not apply.
        if all(raw_name.decode() != name for raw_name, _ in ours):
            del merged[name]
    return encoded(merged)


def _failed(result: Result, failure: Failure, request_id: str) -> Reply:
    if failure.body is None:
        return problem_reply(result.problem(request_id), result.headers)
    content, media = failure.body.content, raw_value(failure.body.content_type) or b"application/octet-stream"
    length = b"%d" % len(content)
    fields = [(b"content-type", media), (b"content-length", length), _NO_STORE, *encoded(result.headers)]
    return Reply(failure.status, with_retry_after(failure.status, fields), content)


def _add_diagnostics(reply: Reply, result: Result, rules: AnswerRules) -> None:
    """Add the fields about the calls that ``expose`` permits."""
    values: tuple[bytes, ...] = ()
    failed = False
    if rules.expose == "full":
        if result.failed and (status := proxy_status(result.outcomes)) is not None:
            values, failed = (status.encode(),), True
        values += (server_timing(result.own_ms, result.outcomes).encode(),)
    more, fields = rules.diagnostic_fields(completed=result.completed, failed=failed), reply.fields
    if type(fields) is ResponseFields and type(fields.prepared) is RouteFields:
        fields.prepared = fields.prepared.extended(more)
        fields.values += values
    else:
        reply.fields = [*fields, *ResponseFields(more, values)]
