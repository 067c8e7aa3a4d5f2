"""Response of a composition: makes a reply (status, fields, body) of the composition's result. Does not wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec
from werkzeug.datastructures import Headers

from ...composition.answer.result import Result
from ...core.http.header_field import raw_value
from ...core.model import Failure
from ..request.request_fields import Field
from ..request_context import RequestContext
from .diagnostic_headers import proxy_status, server_timing
from .problems import problem_reply, with_retry_after
from .reply import BODILESS, KRAKEND_COMPLETED, Reply, encoded
from .validators import NO_STORE, check_if_match, etag_of, not_modified

Expose = Literal["full", "completed", "none"]

_SAFE = frozenset({"GET", "HEAD"})
_BODILESS = BODILESS | {205}
_JSON: Field = (b"content-type", b"application/json")
_NO_STORE: Field = (b"cache-control", NO_STORE.encode())
_COMPLETED = {whole: (b"umbel-completed", b"true" if whole else b"false") for whole in (True, False)}
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
        self.usual_vary: Field = (b"vary", self.vary.encode())
        """The field Vary of a response that depends on no further request field."""

    def vary_field(self, more: Sequence[str]) -> Field:
        """The field Vary, with the names ``more`` of further request fields."""
        if not more:
            return self.usual_vary
        names = dict.fromkeys((*self.vary.split(", "), *(name.title() for name in more)))
        return (b"vary", ", ".join(names).encode())


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
        reply.fields = [*reply.fields, *_diagnostics(result, rules)]
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
    status, body = result.status, b""
    fields = [rules.usual_vary]
    if result.headers or result.vary:
        fields = [rules.vary_field((*result.vary, *_said_to_vary(result.headers)))]
    if result.cache_control is not None:
        fields += [(b"cache-control", raw_value(result.cache_control) or NO_STORE.encode())]
    if status not in _BODILESS:
        body = _encode(result.answer)
        fields += [_JSON]
        if status == 200 and result.completed and ctx.facts.method in _SAFE:
            etag: str | None = None
            if result.validated:
                # The ETag of the upstream's response, which is the whole content of this response.
                etag = next((value for name, value in result.headers if name == "etag"), None)
            elif rules.etag:
                etag = etag_of(body)
                fields += [(b"etag", etag.encode())]
                check_if_match(ctx, etag)
            asked = ctx.origin.fields.by_name
            if etag is not None and "if-none-match" in asked and not_modified(asked["if-none-match"], etag):
                status, body = 304, b""
                fields.remove(_JSON)
    if status not in BODILESS:
        fields += [(b"content-length", b"%d" % len(body))]
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


def _diagnostics(result: Result, rules: AnswerRules) -> list[Field]:
    completed = _COMPLETED[result.completed]
    fields = [completed]
    if rules.krakend_compat:
        fields += [(KRAKEND_COMPLETED, completed[1])]
    if rules.expose == "full":
        if result.failed and (failed := proxy_status(result.outcomes)) is not None:
            fields += [(b"proxy-status", failed.encode())]
        fields += [(b"server-timing", server_timing(result.own_ms, result.outcomes).encode())]
    return fields
