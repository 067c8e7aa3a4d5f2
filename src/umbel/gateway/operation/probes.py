"""Probes ``/livez`` (does the process run?) and ``/readyz`` (should the process get requests?).

A probe is answered before Quart's dispatch, so no hook of the application (a login, a rate limit) can refuse it. A
route of the application at the same path takes precedence; a configured route cannot have it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from quart_trio.wrappers import TrioResponse

from ...core.http.probe_paths import PROBES
from ...core.problem import Problem
from ..response.problems import problem_response
from ..response.validators import NO_STORE

if TYPE_CHECKING:
    from quart.wrappers import Request
    from werkzeug.routing import Map

    from ..context import ServingState
    from ..request_context import RequestContext

PATHS = PROBES
LIVEZ, READYZ = PROBES
_ALLOW = "GET, HEAD, OPTIONS"


def probe(serving: ServingState, routes: Map, request: Request, ctx: RequestContext) -> TrioResponse | None:
    """The response to a probe; None if ``request`` is no probe, or one of ``routes`` has the same path."""
    path = request.path
    if path not in PATHS or any(rule.rule == path for rule in routes.iter_rules()):
        return None
    facts = ctx.routed(path, ctx.facts.deadline)
    if request.method == "OPTIONS":
        return TrioResponse(b"", HTTPStatus.NO_CONTENT, {"allow": _ALLOW})
    if request.method not in ("GET", "HEAD"):
        return problem_response(
            Problem(405, "A probe must be a GET or HEAD request.", request_id=facts.request_id), [("allow", _ALLOW)]
        )
    if path == LIVEZ:
        return _fine(b'{"status":"live"}')
    if serving.ready:
        # A log that cannot be written (a full disk) does not make the process unready: it can still answer, and all
        # other workers share the disk.
        return _fine(b'{"status":"ready"}')
    # Any client can ask. The reasons are on the admin side.
    return problem_response(Problem(503, "Not ready.", kind="not-ready", request_id=facts.request_id))


def _fine(body: bytes) -> TrioResponse:
    return TrioResponse(body, 200, {"cache-control": NO_STORE}, content_type="application/json")
