"""The site of an admin side: its endpoints as an application of Umbel's own server.

Every answer may hold secrets of the operator or name the state of a machine, so none is stored, framed or guessed at.
An exception of the source becomes a 500 and one report; it never reaches the server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
import trio

from ..core.inbound import AnsweredByServerError, ClientGoneError, InboundApplication
from ..net.exception_groups import described
from .answer import HTML, JSON, Answer, problem_answer, send_answer
from .guard import Exchange, Guard, Refusal
from .live import CONTENT_TYPE as EVENTS_TYPE
from .live import TOPICS_MAX, LiveFeeds
from .page import status_page, token_page
from .source import COMMANDS, AdminSource, CommandError, Report
from .static_files import PREFIX as CONSOLE_PREFIX
from .static_files import is_known, static_files

if TYPE_CHECKING:
    from ..core.inbound import Field, InboundRequest

BODY_BYTES_MAX = 4096
"""The bound on the arguments of a command."""
PAGES = ("/", "/status", "/tree", "/lints", "/slow", "/plan", "/config", "/events", "/metrics", "/livez", "/readyz")
"""The paths of GET requests."""
SLOW_PREFIX = "/slow/"
"""The beginning of the paths of kept requests, before the id. They are served where ``/slow`` is."""
COMMAND_PREFIX = "/ctl/"
"""The beginning of the paths of POST requests."""
URL_COMMAND = "url"
"""The command that the admin side carries out by itself: it makes a URL of the page with a new one-time token."""
_COMMANDS = (*COMMANDS, URL_COMMAND)
PROGRAM_PATHS = ("/", "/status", "/tree", "/lints", "/events", "/livez")
"""The paths of a program that is no server: it has neither metrics nor a configuration, and takes no commands."""
PATHS = (*PAGES, *(COMMAND_PREFIX + name for name in _COMMANDS))
"""All paths."""
_OPENMETRICS, _CLASSIC = b"application/openmetrics-text", b"text/plain"
_QUALITY = re.compile(rb"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")
SECURITY_FIELDS: tuple[Field, ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Fields of every answer. The URL may hold a token, so no page may learn it (Referrer-Policy)."""


@dataclass(frozen=True, slots=True)
class _Events:
    """The answer to a request for events of these topics."""

    topics: list[str]


class AdminSite(InboundApplication):
    """The endpoints of an admin side.

    Args:
        source: gives the data and carries out the commands.
        guard: decides which requests are answered.
        report: takes the failures of ``source``.
        paths: the paths that are served.
        page_url: makes a URL of the page with a new one-time token; None if no address serves the page.
        feeds: the live data, which several sites share; None: that of ``source``, of this site alone.
    """

    def __init__(
        self,
        source: AdminSource,
        guard: Guard,
        report: Report,
        paths: Collection[str] = PATHS,
        page_url: Callable[[], str | None] = lambda: None,
        feeds: LiveFeeds | None = None,
    ) -> None:
        self._feeds = LiveFeeds(source.topics(), report) if feeds is None else feeds
        self._source = source
        self._guard = guard
        self._report = report
        self._paths = frozenset(paths)
        self._page_url = page_url

    async def handle(self, request: Any) -> None:
        """Answer an ``InboundRequest``; cut the answer if the client does not take it within ``answer.ANSWER_S``.

        A client that leaves ends nothing but its answer: the command is carried out.
        """
        try:
            answer = await self._answer(request)
            if isinstance(answer, _Events):
                await self._feeds.stream(request, answer.topics, SECURITY_FIELDS)
                return
        except (ClientGoneError, AnsweredByServerError):
            raise
        except Exception as error:  # noqa: BLE001 - no failure of the source may end the admin side
            path = request.target.partition(b"?")[0].decode("latin-1")
            self._report(f"admin.failed {path}", f"the admin side cannot answer {path}: {described(error)}")
            answer = problem_answer(500, "The admin side has failed; see the log.")
        await send_answer(request, answer, SECURITY_FIELDS)

    def error_response_fields(self, head: object, fields: Sequence[Field]) -> Sequence[Field]:
        """``fields``, and the fields of every answer."""
        return (*fields, *SECURITY_FIELDS)

    async def _answer(self, request: InboundRequest) -> Answer | _Events:
        verdict = self._guard.check(request)
        if isinstance(verdict, Exchange):
            return Answer(303, HTML, b"", ((b"location", b"/"), (b"set-cookie", verdict.cookie)))
        if verdict is not None:
            return _refused(request, verdict)
        path = request.target.partition(b"?")[0].decode("latin-1")
        if path.startswith(COMMAND_PREFIX) and path not in self._paths:
            name = path.removeprefix(COMMAND_PREFIX)
            return problem_answer(404, f'"{name}" is not a command; the commands are {", ".join(_COMMANDS)}')
        if (path.startswith(SLOW_PREFIX) and "/slow" in self._paths) or self._is_of_console(path):
            pass
        elif path not in self._paths:
            return problem_answer(404, f"The paths are {', '.join(sorted(self._paths))}.")
        allowed = ("POST",) if path.startswith(COMMAND_PREFIX) else ("GET", "HEAD")
        if request.method not in allowed:
            return problem_answer(405, f"Send {allowed[0]}.", (b"allow", ", ".join(allowed).encode()))
        if path.startswith(COMMAND_PREFIX):
            return await self._command(path.removeprefix(COMMAND_PREFIX), request)
        if path == "/events":
            return self._events(request)
        if path.startswith(CONSOLE_PREFIX):
            return await _static(path, request)
        return await self._page(path, request)

    def _is_of_console(self, path: str) -> bool:
        return path.startswith(CONSOLE_PREFIX) and "/" in self._paths

    def _events(self, request: InboundRequest) -> Answer | _Events:
        """The topics that a request for events names, or why it is refused."""
        query = request.target.partition(b"?")[2].decode("latin-1")
        try:
            topics = list(dict.fromkeys(parse_qs(query, max_num_fields=TOPICS_MAX).get("topic", ())))
        except ValueError:
            topics = []
        if not topics or set(topics) - set(self._feeds.names):
            return problem_answer(400, f"Name topics, /events?topic=NAME; they are {', '.join(self._feeds.names)}.")
        if request.method == "HEAD":
            return Answer(200, EVENTS_TYPE, b"")
        if not self._feeds.has_room:
            return problem_answer(503, "Too many pages are open; close one.", (b"retry-after", b"5"))
        return _Events(topics)

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
        if path == "/lints":
            return _json(200, {"lints": await source.lints()})
        if path == "/slow":
            return _json(200, await source.slow())
        if path.startswith(SLOW_PREFIX):
            kept = await source.slow_request(path.removeprefix(SLOW_PREFIX))
            return problem_answer(404, _NOT_KEPT) if kept is None else _json(200, kept)
        if path == "/config":
            return _json(200, await source.configuration())
        if path == "/plan":
            return await self._plan(request)
        status = await source.status()
        if path == "/status":
            return _json(200, status)
        return Answer(200, HTML, status_page(status, self._feeds.names, self._paths))

    async def _plan(self, request: InboundRequest) -> Answer:
        query = request.target.partition(b"?")[2].decode("latin-1")
        try:
            route = parse_qs(query, max_num_fields=1).get("route", [""])[0]
        except ValueError:
            route = ""
        plans = await self._source.plan(route) if route else None
        return problem_answer(404, _NO_PLAN) if plans is None else _json(200, plans)

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
            return problem_answer(409, _NO_PAGE) if url is None else _json(200, {"url": url})
        try:
            return _json(200, await self._source.command(name, arguments))
        except CommandError as error:
            return problem_answer(409, str(error))


_NOT_KEPT = "No such request is kept (any more): GET /slow lists those that are."
_NO_PLAN = "No configured route has this path: GET /plan?route=PATH, such as /items/<int:id> with its < and > encoded."
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


async def _static(path: str, request: InboundRequest) -> Answer:
    """A file of the console. It is no secret, so a browser may keep it, and ask whether it has changed."""
    file = (await trio.to_thread.run_sync(static_files, abandon_on_cancel=True)).get(path)
    if file is None:
        return problem_answer(404, "The console has no such file.")
    fields = ((b"cache-control", b"no-cache"), (b"etag", file.etag))
    known = b",".join(value for name, value in request.fields if name == b"if-none-match")
    if known and is_known(file.etag, known):
        return Answer(304, file.content_type, b"", fields)
    return Answer(200, file.content_type, file.content, fields)


def _refused(request: InboundRequest, refusal: Refusal) -> Answer:
    accepts = b",".join(value for name, value in request.fields if name == b"accept")
    if refusal.status == 401 and request.method in ("GET", "HEAD") and b"text/html" in accepts:
        return Answer(401, HTML, token_page(refusal.detail), refusal.fields)
    return problem_answer(refusal.status, refusal.detail, *refusal.fields)


def _json(status: int, value: Any) -> Answer:
    return Answer(status, JSON, msgspec.json.encode(value, enc_hook=str))
