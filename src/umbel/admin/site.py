"""The site of an admin side: its endpoints as an application of Umbel's own server.

Every answer may hold secrets of the operator or name the state of a machine, so none is stored, framed or guessed at.
An exception of the source becomes a 500 and one report; it never reaches the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from ..core.inbound import AnsweredByServerError, ClientGoneError, InboundApplication
from ..core.problem import CONTENT_TYPE, Problem
from ..net.exception_groups import described
from .guard import Exchange, Guard, Refusal
from .page import status_page, token_page
from .source import COMMANDS, AdminSource, CommandError

if TYPE_CHECKING:
    from ..core.inbound import Field, InboundRequest

ANSWER_S = 5.0
"""The time limit in seconds for a client to take the whole answer."""
BODY_BYTES_MAX = 4096
"""The bound on the arguments of a command."""
PAGES = ("/", "/status", "/tree", "/slow", "/metrics", "/livez", "/readyz")
"""The paths of GET requests."""
SLOW_PREFIX = "/slow/"
"""The beginning of the paths of kept requests, before the id. They are served where ``/slow`` is."""
COMMAND_PREFIX = "/ctl/"
"""The beginning of the paths of POST requests."""
URL_COMMAND = "url"
"""The command that the admin side carries out by itself: it makes a URL of the page with a new one-time token."""
_COMMANDS = (*COMMANDS, URL_COMMAND)
PATHS = (*PAGES, *(COMMAND_PREFIX + name for name in _COMMANDS))
"""All paths."""
_OPENMETRICS, _CLASSIC = b"application/openmetrics-text", b"text/plain"
_QUALITY = re.compile(rb"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
_HTML, _JSON = b"text/html; charset=utf-8", b"application/json"
SECURITY_FIELDS: tuple[Field, ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Fields of every answer. The URL may hold a token, so no page may learn it (Referrer-Policy)."""

Report = Callable[[str, str], object]
"""Reports a failure once to operators: the name of the event, and a sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    status: int
    content_type: bytes
    body: bytes
    fields: tuple[Field, ...] = ()


class AdminSite(InboundApplication):
    """The endpoints of an admin side.

    Args:
        source: gives the data and carries out the commands.
        guard: decides which requests are answered.
        report: takes the failures of ``source``.
        paths: the paths that are served.
        page_url: makes a URL of the page with a new one-time token; None if no address serves the page.
    """

    def __init__(
        self,
        source: AdminSource,
        guard: Guard,
        report: Report,
        paths: Collection[str] = PATHS,
        page_url: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._source = source
        self._guard = guard
        self._report = report
        self._paths = frozenset(paths)
        self._page_url = page_url

    async def handle(self, request: Any) -> None:
        """Answer an ``InboundRequest``; cut the answer if the client does not take it within ``ANSWER_S``.

        A client that leaves ends nothing but its answer: the command is carried out.
        """
        try:
            answer = await self._answer(request)
        except (ClientGoneError, AnsweredByServerError):
            raise
        except Exception as error:  # noqa: BLE001 - no failure of the source may end the admin side
            path = request.target.partition(b"?")[0].decode("latin-1")
            self._report(f"admin.failed {path}", f"the admin side cannot answer {path}: {described(error)}")
            answer = _problem(500, "The admin side has failed; see the log.")
        fields = [(b"content-type", answer.content_type), *answer.fields, *SECURITY_FIELDS]
        if not request.respond(answer.status, fields, answer.body):
            with trio.move_on_after(ANSWER_S) as scope:
                await request.drained()
            if scope.cancelled_caught:
                request.cut("the client of the admin side reads too slowly")

    def error_response_fields(self, head: object, fields: Sequence[Field]) -> Sequence[Field]:
        """``fields``, and the fields of every answer."""
        return (*fields, *SECURITY_FIELDS)

    async def _answer(self, request: InboundRequest) -> Answer:
        verdict = self._guard.check(request)
        if isinstance(verdict, Exchange):
            return Answer(303, _HTML, b"", ((b"location", b"/"), (b"set-cookie", verdict.cookie)))
        if verdict is not None:
            return _refused(request, verdict)
        path = request.target.partition(b"?")[0].decode("latin-1")
        if path.startswith(COMMAND_PREFIX) and path not in self._paths:
            name = path.removeprefix(COMMAND_PREFIX)
            return _problem(404, f'"{name}" is not a command; the commands are {", ".join(_COMMANDS)}')
        if path.startswith(SLOW_PREFIX) and "/slow" in self._paths:
            pass
        elif path not in self._paths:
            return _problem(404, f"The paths are {', '.join(sorted(self._paths))}.")
        allowed = ("POST",) if path.startswith(COMMAND_PREFIX) else ("GET", "HEAD")
        if request.method not in allowed:
            return _problem(405, f"Send {allowed[0]}.", (b"allow", ", ".join(allowed).encode()))
        if path.startswith(COMMAND_PREFIX):
            return await self._command(path.removeprefix(COMMAND_PREFIX), request)
        return await self._page(path, request)

    async def _page(self, path: str, request: InboundRequest) -> Answer:
        source = self._source
        if path == "/livez":
            return _json(200, {"status": "live"})
        if path == "/readyz":
            ready, details = source.readiness()
            return _json(200 if ready else 503, {"status": "ready" if ready else "not ready", **details})
        if path == "/metrics":
            return await self._metrics(request)
        if path == "/tree":
            return _json(200, {"trees": await source.trees()})
        if path == "/slow":
            return _json(200, await source.slow())
        if path.startswith(SLOW_PREFIX):
            kept = await source.slow_request(path.removeprefix(SLOW_PREFIX))
            return _problem(404, _NOT_KEPT) if kept is None else _json(200, kept)
        status = await source.status()
        return _json(200, status) if path == "/status" else Answer(200, _HTML, status_page(status))

    async def _metrics(self, request: InboundRequest) -> Answer:
        accept = b",".join(value for name, value in request.fields if name == b"accept")
        metrics = await self._source.metrics(openmetrics=prefers_openmetrics(accept))
        return Answer(200, metrics.content_type.encode(), metrics.text)

    async def _command(self, name: str, request: InboundRequest) -> Answer:
        request.take_at_most(BODY_BYTES_MAX)
        arguments = b""
        while piece := await request.receive():
            arguments += piece
        if name == URL_COMMAND:
            url = self._page_url()
            return _problem(409, _NO_PAGE) if url is None else _json(200, {"url": url})
        try:
            return _json(200, await self._source.command(name, arguments))
        except CommandError as error:
            return _problem(409, str(error))


_NOT_KEPT = "No such request is kept (any more): GET /slow lists those that are."
_NO_PAGE = "no address serves the page; set bind and token in [admin], or start the instance on a terminal"


def prefers_openmetrics(accept: bytes) -> bool:
    """Whether Accept names OpenMetrics, with at least the quality of the classic format (RFC 9110 section 12.5.1).

    A wildcard does not name it. A quality that is malformed counts as 1.
    """
    qualities = {_OPENMETRICS: 0.0, _CLASSIC: 0.0}
    for element in accept.lower().split(b","):
        media, *parameters = (part.strip() for part in element.split(b";"))
        if media in qualities:
            given = [found for each in parameters if (found := _QUALITY.fullmatch(each)) is not None]
            qualities[media] = max(qualities[media], float(given[0][1]) if given else 1.0)
    return qualities[_OPENMETRICS] > 0 and qualities[_OPENMETRICS] >= qualities[_CLASSIC]


def _refused(request: InboundRequest, refusal: Refusal) -> Answer:
    accepts = b",".join(value for name, value in request.fields if name == b"accept")
    if refusal.status == 401 and request.method in ("GET", "HEAD") and b"text/html" in accepts:
        return Answer(401, _HTML, token_page(refusal.detail), refusal.fields)
    return _problem(refusal.status, refusal.detail, *refusal.fields)


def _json(status: int, value: Any) -> Answer:
    return Answer(status, _JSON, msgspec.json.encode(value, enc_hook=str))


def _problem(status: int, detail: str, *fields: Field) -> Answer:
    return Answer(status, CONTENT_TYPE.encode(), Problem(status, detail).encode(), fields)
