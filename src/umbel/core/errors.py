"""Exceptions of Umbel: one tree, whose classes say who is at fault.

It imports nothing but the kinds of failures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .failure_kinds import KINDS, Kind


class UmbelError(Exception):
    """Base of all exceptions that Umbel raises on purpose."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in a configuration: where it stands, which key, and what to do instead."""

    file: str
    line: int | None
    key: str
    reason: str

    def __str__(self) -> str:
        """``file:line: key: reason``, the one line that people see."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.key, self.reason) if part)


class ConfigError(UmbelError):
    """The operator's mistake: the configuration cannot be used. Carries every problem found, in file order."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class NotRunningError(UmbelError):
    """The caller's mistake: something was used outside the ``async with`` (or lifespan) that runs it."""


class UpstreamError(UmbelError):
    """The upstream's fault: an attempt gave no usable response.

    ``detail`` is for records only; it may name hosts and must never reach a client. The transports raise
    subclasses that are also httpx exceptions (``umbel.upstream.errors``), so httpx users catch what they know.
    """

    kind: Kind = Kind.INTERNAL

    def __init__(self, detail: str, *, proxy_error: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.proxy_error = proxy_error or KINDS[self.kind].proxy_error
        self.retry_after: float | None = None
        """Seconds after which a call may fare better, where somebody knows."""
        self.answered: tuple[int, Sequence[tuple[bytes, bytes, bytes]]] | None = None
        """The status and the fields of a response of which only the content cannot be used."""

    def forget_frames(self) -> None:
        """Forget where it was raised, and what caused it.

        Frames hold the call that failed, which holds its error: a cycle, which would wait for the garbage collector.
        ``detail`` says all that is recorded.
        """
        error: BaseException | None = self
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__


class RequestError(UmbelError):
    """The client's fault: the request cannot be answered as it stands. ``str(error)`` is shown to the client."""

    def __init__(
        self, status: int, detail: str, *, title: str | None = None, fields: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title
        self.fields = tuple(fields)
        """The header fields that belong to the status, such as ``Allow`` to 405."""
