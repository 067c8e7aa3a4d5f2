"""Base exceptions of Umbel. The class says who is at fault: the operator, the caller, an upstream or the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .failure_kinds import KINDS, Kind


class UmbelError(Exception):
    """Base of the exceptions below and of some others, but not of all that Umbel raises."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in a configuration."""

    file: str
    line: int | None
    """The line in ``file``; None if the mistake has no line, such as a missing file."""
    key: str
    """The path of the key, such as ``upstreams.users.url``; empty if no key is concerned."""
    reason: str
    """What is wrong, and what to write instead."""

    def __str__(self) -> str:
        """The line that users see: ``file:line: key: reason``."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.reason) if part)


class ConfigError(UmbelError):
    """The configuration cannot be used (the operator's mistake). ``problems`` holds all mistakes that were found."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class NotRunningError(UmbelError):
    """An object was used outside of the ``async with`` or lifespan that runs it (the caller's mistake)."""


class UpstreamError(UmbelError):
    """A call got no usable response from its upstream.

    The subclasses in ``umbel.upstream.errors`` are also httpx exceptions, so ``except httpx.ConnectError`` works.

    Args:
        detail: the reason, for records only. It may name hosts and must never be sent to a client.
        proxy_error: the ``error`` parameter of Proxy-Status (RFC 9209 section 2.3); None: that of ``kind``.
    """

    kind: Kind = Kind.INTERNAL

    def __init__(self, detail: str, *, proxy_error: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.proxy_error = proxy_error or KINDS[self.kind].proxy_error
        self.retry_after: float | None = None
        """Seconds after which a new call may succeed; None: not known."""
        self.limit = ""
        """The section ``[limits.NAME]`` that refused the call; empty: none did."""
        self.answered: tuple[int, Sequence[tuple[bytes, bytes, bytes]]] | None = None
        """Status and fields of the response, if only the response's content is unusable; else None."""

    def forget_frames(self) -> None:
        """Remove the tracebacks of this exception and of its causes.

        The frames hold the failed call, and the call holds this exception: a reference cycle, which only the garbage
        collector would free. Records need no traceback; they use ``detail``.
        """
        error: BaseException | None = self
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


class RequestError(UmbelError):
    """The client's request is answered with an error (the client's mistake, or the gateway is not ready).

    Args:
        status: the status of the error response.
        detail: one sentence for the client; it becomes ``detail`` of the problem document, and ``str(error)``.
        title: the ``title`` of the problem document; None: the reason phrase of ``status``.
        fields: header fields that belong to the status, such as ``Allow`` with 405.
        problem: the ``kind`` of the problem document; empty: ``about:blank``.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        fields: Sequence[tuple[str, str]] = (),
        problem: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title
        self.may_succeed_later = True
        """Whether a status that permits Retry-After gets one even if ``fields`` have none."""
        self.fields = tuple(fields)
        self.problem = problem
