"""Errors as responses: problem documents from Quart's and werkzeug's exceptions and from our own.

A document never holds the text of an exception that nobody wrote for clients.
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
"""Seconds after which a shed request may come again, where nobody nearer to the cause says so."""
_ASK_AGAIN = frozenset({429, 503})

_DETAILS = {
    400: "The request cannot be understood.",
    404: "No route matches this path.",
    405: "The path exists, but not with this method; Allow names those it has.",
    408: "The request did not arrive in time.",
    413: "The body is larger than this path takes.",
    415: "The body's media type or coding is not one that this path takes.",
    500: "The request failed inside the gateway.",
}


def problem_reply(problem: Problem, headers: Iterable[tuple[str, str]] = ()) -> Reply:
    """The answer that carries ``problem``: never stored, and with Retry-After where the client may come again."""
    body = problem.encode()
    fields = [*_PROBLEM_FIELDS, *encoded(headers)]
    fields.insert(1, (b"content-length", b"%d" % len(body)))
    return Reply(problem.status, with_retry_after(problem.status, fields), body)


def with_retry_after(status: int, fields: list[Field]) -> list[Field]:
    """``fields``, with a Retry-After where the status needs one and nobody has said it (RFC 9110 section 10.2.3)."""
    if status in _ASK_AGAIN and all(name != b"retry-after" for name, _ in fields):
        fields.append((b"retry-after", RETRY_AFTER.encode()))
    return fields


_PROBLEM_FIELDS = ((b"content-type", CONTENT_TYPE.encode()), (b"cache-control", NO_STORE.encode()))


def problem_response(problem: Problem, headers: Iterable[tuple[str, str]] = ()) -> TrioResponse:
    """The same as a response of Quart's."""
    return as_response(problem_reply(problem, headers))


def request_error_reply(error: RequestError, request_id: str) -> Reply:
    """The answer to a request that cannot be answered as it stands."""
    problem = Problem(error.status, error.detail, error.title or "", request_id=request_id)
    return problem_reply(problem, error.fields)


def http_exception_reply(error: HTTPException, request_id: str) -> Reply:
    """The answer of an HTTP exception that no handler took, with its own fields (Allow, WWW-Authenticate, …).

    A description that somebody wrote (``abort(409, "…")``) is the detail; werkzeug's stock ones are not.
    """
    status = error.code or 500
    cause = error.__cause__
    if isinstance(cause, RequestError):
        return request_error_reply(cause, request_id)
    stock = getattr(type(error), "description", None)
    own = error.description if isinstance(stock, str) and error.description != stock else None
    if isinstance(error, MethodNotAllowed):
        # werkzeug gives a set, whose order changes with every start.
        error.valid_methods = sorted(error.valid_methods or ())
    headers = [(name, value) for name, value in error.get_headers() if name.lower() != "content-type"]
    return problem_reply(Problem(status, own or _DETAILS.get(status, ""), request_id=request_id), headers)


def from_request_error(error: RequestError, request_id: str) -> TrioResponse:
    """``request_error_reply`` as a response of Quart's."""
    return as_response(request_error_reply(error, request_id))


def from_http_exception(error: HTTPException, request_id: str) -> TrioResponse:
    """``http_exception_reply`` as a response of Quart's."""
    return as_response(http_exception_reply(error, request_id))


def as_http_exception(error: RequestError) -> HTTPException:
    """The HTTP exception of the same status, so that ``@app.errorhandler(status)`` finds it; ``error`` is its cause."""
    exception = default_exceptions.get(error.status, HTTPException)(error.detail)
    exception.code = error.status
    exception.__cause__ = error
    return exception
