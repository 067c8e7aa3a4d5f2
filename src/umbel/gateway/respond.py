"""A composition's result as an HTTP response: status, fields and bytes.

Called by the views of ``routes.py``, ``compose.py`` and ``streaming.py``. The rules are the "Answers" table of the
semantics; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from quart.wrappers import Request
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import Headers

from ..composition.result import Result
from ..model import Failure
from .caching import NO_STORE, etag_of, not_modified
from .exchange import Exchange
from .problems import RETRY_AFTER, problem_response
from .statusfields import proxy_status, server_timing

Expose = Literal["full", "completed", "none"]

_SAFE = frozenset({"GET", "HEAD"})
_BODILESS = frozenset({204, 205})


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """What a route says about its answers' fields."""

    vary: str = "Accept"
    etag: bool = True
    expose: Expose = "full"
    krakend_compat: bool = False

    @classmethod
    def varying(cls, names: Iterable[str], *, etag: bool, expose: Expose, krakend_compat: bool) -> AnswerRules:
        """The rules of a route whose plan reads the request headers ``names``."""
        return cls(", ".join(dict.fromkeys(name.title() for name in ("accept", *names))), etag, expose, krakend_compat)


def answer(result: Result, rules: AnswerRules, exchange: Exchange, request: Request) -> TrioResponse:
    """The response for ``result``; what the request's record says of it is noted in ``exchange``."""
    note_result(result, exchange)
    if result.failure is not None:
        response = _failed(result, result.failure, exchange.facts.request_id)
    else:
        response = _composed(result, rules, request)
    for name, value in _diagnostics(result, rules):
        response.headers.add(name, value)
    # The server's write deadline cuts a client that reads nothing; Quart's timeout would cut one that reads slowly too.
    response.timeout = None
    return response


def note_result(result: Result, exchange: Exchange) -> None:
    """Write into the exchange what the request's one record tells of the result."""
    exchange.completed = result.completed and result.failure is None
    if result.failure is not None:
        exchange.kind, exchange.detail = result.failure.kind, result.failure.detail


def _composed(result: Result, rules: AnswerRules, request: Request) -> TrioResponse:
    headers = Headers()
    for name, value in result.headers:
        headers.add(name, value)
    headers["vary"] = ", ".join((rules.vary, *(name.title() for name in result.vary)))
    if not result.completed:
        headers["cache-control"] = NO_STORE
    elif result.cache_control is not None:
        headers["cache-control"] = result.cache_control
    if result.status in _BODILESS:
        return _empty(result.status, headers)
    body = msgspec.json.encode(result.answer)
    headers["content-type"] = "application/json"
    if rules.etag and result.completed and result.status == 200 and request.method in _SAFE:
        headers["etag"] = etag = etag_of(body)
        if not_modified(request.headers.get("if-none-match"), etag):
            return _empty(304, headers)
    return TrioResponse(body, result.status, headers)


def _empty(status: int, headers: Headers) -> TrioResponse:
    response = TrioResponse(b"", status, headers)
    # No content, so no type of it; Quart would say text/html.
    del response.headers["content-type"]
    return response


def _failed(result: Result, failure: Failure, request_id: str) -> TrioResponse:
    if failure.body is None:
        response = problem_response(result.problem(request_id))
    else:
        response = TrioResponse(failure.body.content, failure.status, content_type=failure.body.content_type)
        response.headers["cache-control"] = NO_STORE
    if failure.status in (429, 503):
        response.headers["retry-after"] = failure.retry_after or RETRY_AFTER
    return response


def _diagnostics(result: Result, rules: AnswerRules) -> Sequence[tuple[str, str]]:
    if rules.expose == "none":
        return ()
    completed = "true" if result.completed and result.failure is None else "false"
    fields = [("umbel-completed", completed)]
    if rules.krakend_compat:
        fields.append(("x-krakend-completed", completed))
    if rules.expose == "full":
        if (failed := proxy_status(result.outcomes)) is not None:
            fields.append(("proxy-status", failed))
        fields.append(("server-timing", server_timing(result.own_ms, result.outcomes)))
    return fields
