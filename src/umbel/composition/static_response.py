"""Static responses: the ``respond`` of a route or of a call, and the ``redirect`` of a route.

Status, header fields and content of a ``respond`` are bytes, made at load: a file is read then, and no request reads
it. A call with ``respond`` is a ``StaticCall``: a ``core.call.Call`` that sends nothing. It has the configured response
after its delay, so that the rules of the call apply to this response as to one of an upstream.

The Location of a ``redirect`` is a literal origin (or none), then the path and query of a ``TargetTemplate``. A value
of the request is one percent-encoded segment that is neither empty nor a dot segment, or one query value. So no value
can begin a path with ``//``, hold ``/``, ``\\``, ``:`` or a control character, or change the origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from mimetypes import MimeTypes
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from ..core.call import CallBase
from ..core.http.forward_all import STAR
from ..core.httpx_calls.transport_caller import CallTimedOut
from ..core.regular_file import open_regular
from ..net.exception_groups import cancel_reason
from .request.forward import forwarded_query
from .text.template import MAX_TARGET, BadValueError

if TYPE_CHECKING:
    from ..config.schema.sections import Respond
    from ..core.call import CallContext, Mode, PreparedRequest
    from ..core.model import Json
    from .text.template import TargetTemplate

FILE_MAX = 2**20
"""The most bytes of the file of a ``respond``: each worker keeps it in memory."""
NO_UPSTREAM = "respond"
"""The name of the upstream in the records of a call with ``respond`` that names none."""

# The types of the standard library without those of the machine, which would differ between machines.
_TYPES = MimeTypes()
for _type, _ending in (
    ("text/javascript", ".js"),
    ("text/javascript", ".mjs"),
    ("application/manifest+json", ".webmanifest"),
    ("application/wasm", ".wasm"),
    ("application/yaml", ".yaml"),
    ("application/yaml", ".yml"),
    ("font/woff2", ".woff2"),
    ("image/webp", ".webp"),
    ("text/markdown", ".md"),
):
    _TYPES.add_type(_type, _ending)


class StaticResponse(NamedTuple):
    """A response of the configuration."""

    status: int
    fields: tuple[tuple[bytes, bytes], ...]
    """The header fields with names in lower case: the configured ones, and Content-Type if there is a body."""
    content: bytes
    delay: float
    """Seconds before the response."""

    @classmethod
    def of(cls, respond: Respond) -> StaticResponse:
        """Make the response of a ``respond`` table. Reads its file.

        Raises:
            ValueError: the file cannot be read, or is larger than ``FILE_MAX``.
        """
        content, media = _content(respond)
        fields = {"content-type": media} if media else {}
        fields |= respond.headers
        encoded = tuple((name.encode("ascii"), value.encode()) for name, value in fields.items())
        return cls(respond.status, encoded, content, respond.delay)


def _content(respond: Respond) -> tuple[bytes, str]:
    """The content of a ``respond`` table and its media type; both are empty without a body."""
    if respond.json_ is not None:
        return msgspec.json.encode(respond.json_), "application/json"
    if respond.text is not None:
        return respond.text.encode(), "text/plain; charset=utf-8"
    if respond.file is None:
        return b"", ""
    media, coding = _TYPES.guess_type(respond.file)
    if media is None or coding is not None:
        media = "application/octet-stream"
    return _read(respond.file), f"{media}; charset=utf-8" if media.startswith("text/") else media


def _read(path: str) -> bytes:
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123  # a descriptor
            content = file.read(FILE_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: the name holds a NUL.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"the file cannot be read: {reason[:1].lower()}{reason[1:]}") from error
    if len(content) > FILE_MAX:
        raise ValueError(f"the file is larger than {FILE_MAX // 2**20} MiB; serve large files by a server for files")
    return content


class RedirectTemplate(NamedTuple):
    """The compiled ``redirect`` of a route."""

    status: int
    origin: str
    """Scheme, host and port of the target; empty: those of the request."""
    target: TargetTemplate
    keeps_query: bool = False
    """Whether the query of the request is added to that of the target."""

    def location(self, context: Mapping[str, Json], raw_query: bytes = b"") -> bytes:
        """The value of Location for a request with this evaluation context and this query.

        The query is added unchanged, except that a byte that no target may hold is percent-encoded. So it cannot end
        the query or the field.

        Raises:
            BadValueError: a value cannot be encoded as a segment or a query value, or the target is too long.
        """
        path, query = self.target.expand(context, {})
        if self.keeps_query:
            query.extend(forwarded_query(raw_query, (STAR,)))
        location = f"{self.origin}{path}?{'&'.join(query)}" if query else f"{self.origin}{path}"
        if len(location) > MAX_TARGET:
            raise BadValueError("to", f"makes a target of more than {MAX_TARGET} bytes", client_parameter="")
        return location.encode("ascii")


class StaticCaller:
    """A ``core.call.Caller`` whose calls have the same response."""

    def __init__(self, response: StaticResponse) -> None:
        self.response = response
        self.fields = tuple((name, name, value) for name, value in response.fields)
        self.names = frozenset(name for name, _ in response.fields)

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> StaticCall:
        """Make a call, without starting it; see ``core.call.Caller``.

        Raises:
            ValueError: ``mode`` is "stream", which is not supported.
        """
        if mode != "whole":
            raise ValueError('a static response supports only calls of mode "whole"')
        return StaticCall(self, prepared, context)


class StaticCall(CallBase):
    """A call that sends nothing and has the response of its caller; see ``core.call.Call``.

    With a delay it needs a task, which waits in ``finish``.
    """

    __slots__ = ("_caller", "_done", "_due", "_scope")

    def __init__(self, caller: StaticCaller, prepared: PreparedRequest, context: CallContext) -> None:
        super().__init__(prepared, context)
        self._caller = caller
        self._due = 0.0
        self._done = False
        self._scope: trio.CancelScope | None = None

    def start(self, now: float) -> None:
        """End the call with its response; with a delay, report to the owner that the call needs a task."""
        self._due = now + self._caller.response.delay
        if self._due > now:
            self.context.owner.call_waits(self)
        else:
            self._end(now)

    def send(self) -> None:
        """Do nothing: nothing is sent."""

    async def finish(self) -> None:
        """Wait for the delay, and end the call with its response; or with CallTimedOut if its own timeout is shorter.

        A cancel of the task cancels the call and is raised.
        """
        if self._done:
            return
        limit = self.context.limit
        ends = self._due if limit is None else min(self._due, self.context.deadline)
        try:
            with trio.CancelScope() as self._scope:
                await trio.sleep_until(ends)
        except BaseException as error:
            self.cancel(cancel_reason(error))
            raise
        if not self._done:
            late = limit is not None and ends < self._due
            self._end(trio.current_time(), CallTimedOut.after(limit) if late and limit is not None else None)

    def cancel(self, reason: str) -> None:
        """End the call at once, and end the wait in ``finish``."""
        self._done = True
        if self._scope is not None:
            self._scope.cancel(reason=reason or None)

    def _end(self, now: float, error: Exception | None = None) -> None:
        self._done, self.ended_at, self.error = True, now, error
        if error is None:
            response = self._caller.response
            self.status, self.content = response.status, response.content
            self.fields, self.names = self._caller.fields, self._caller.names
        self.context.owner.call_ended(self)
