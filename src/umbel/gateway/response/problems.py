"""Error responses: problem documents for exceptions of Umbel, Quart and werkzeug.

A problem document must never contain the text of an exception that was not written for clients.
"""

from __future__ import annotations

from collections.abc import Iterable

from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException, MethodNotAllowed, default_exceptions

from ...core.errors import RequestError
from ...core.problem import CONTENT_TYPE, Problem
from ..request.request_fields import Field
from .reply import Reply, as_response, encoded
from .validators import NO_STORE

RETRY_AFTER = "1"
"""Default of Retry-After, in seconds."""
_ASK_AGAIN = frozenset({429, 503})

_DETAILS = {
    400: "The request cannot be understood.",
    404: "No route matches this path.",
    405: "The path does not allow this method; Allow names the methods that it allows.",
    408: "The request did not arrive in time.",
    413: "The body is larger than this path accepts.",
    415: "This path does not accept the body's media type or coding.",
    500: "The request failed inside the gateway.",
}


def problem_reply(
    problem: Problem, headers: Iterable[tuple[str, str]] = (), *, may_succeed_later: bool = True
) -> Reply:
    """The reply with the document ``problem``, Cache-Control: no-store and, for 429 and 503, Retry-After.

    ``may_succeed_later``: whether Retry-After is added if ``headers`` have none.
    """
    body = problem.encode()
    fields = [*_PROBLEM_FIELDS, *encoded(headers)]
    fields.insert(1, (b"content-length", b"%d" % len(body)))
    return Reply(problem.status, with_retry_after(problem.status, fields) if may_succeed_later else fields, body)


def with_retry_after(status: int, fields: list[Field]) -> list[Field]:
    """Add Retry-After to ``fields`` if ``status`` is 429 or 503 and it is missing (RFC 9110 section 10.2.3)."""
    if status in _ASK_AGAIN and all(name != b"retry-after" for name, _ in fields):
        fields.append((b"retry-after", RETRY_AFTER.encode()))
    return fields


_PROBLEM_FIELDS = ((b"content-type", CONTENT_TYPE.encode()), (b"cache-control", NO_STORE.encode()))


def problem_response(problem: Problem, headers: Iterable[tuple[str, str]] = ()) -> TrioResponse:
    """``problem_reply`` as a Quart response."""
    return as_response(problem_reply(problem, headers))


def request_error_reply(error: RequestError, request_id: str) -> Reply:
    """The reply for a ``RequestError``, with its detail and fields."""
    problem = Problem(error.status, error.detail, error.title or "", error.problem, request_id)
    return problem_reply(problem, error.fields, may_succeed_later=error.may_succeed_later)


def http_exception_reply(error: HTTPException, request_id: str) -> Reply:
    """The reply for an HTTP exception without error handler, with its fields (Allow, WWW-Authenticate, …).

    A description of the application (``abort(409, "…")``) becomes the detail; werkzeug's default descriptions do not.
    """
    status = error.code or 500
    cause = error.__cause__
    if isinstance(cause, RequestError):
        return request_error_reply(cause, request_id)
    stock = getattr(type(error), "description", None)
    own = error.description if isinstance(stock, str) and error.description != stock else None
    if isinstance(error, MethodNotAllowed):
        # werkzeug gives a set, whose order is different in each process.
        error.valid_methods = sorted(error.valid_methods or ())
    headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    return problem_reply(Problem(status, own or _DETAILS.get(status, ""), request_id=request_id), headers)


def from_request_error(error: RequestError, request_id: str) -> TrioResponse:
    """``request_error_reply`` as a Quart response."""
    return as_response(request_error_reply(error, request_id))


def from_http_exception(error: HTTPException, request_id: str) -> TrioResponse:
    """``http_exception_reply`` as a Quart response."""
    return as_response(http_exception_reply(error, request_id))


def as_http_exception(error: RequestError) -> HTTPException:
    """Make an HTTP exception with the status of ``error``, so that ``@app.errorhandler(status)`` gets it.

    ``error`` is its cause.
    """
    exception = default_exceptions.get(error.status, HTTPException)(error.detail)
    exception.code = error.status
    exception.__cause__ = error
    return exception
