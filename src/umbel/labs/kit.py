"""What the programs of the labs import: ``bar`` and ``note`` mark what is drawn. Without a recorder they do nothing."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from itertools import groupby
from math import isfinite
from types import CodeType, TracebackType
from typing import Any, Self

from ..net.exception_groups import leaves
from .model import Bar, Deadline, End, Note, Run, Wait

_current: ContextVar[OpenBar | None] = ContextVar("_current", default=None)


class Recorder:
    """Records the bars and notes of one run.

    Args:
        file: path of the program; only its lines are recorded.
        now: the seconds since the start of the run.
        cancelled: the type of the library's exception for a cancel.
        reason_of: puts such an exception into words.
        current_task: the task that runs.
        deadline: the end of the innermost deadline around the running code; infinity if there is none.
    """

    def __init__(
        self,
        file: str,
        now: Callable[[], float],
        cancelled: type[BaseException],
        reason_of: Callable[[BaseException], str],
        current_task: Callable[[], Any],
        deadline: Callable[[], float],
    ) -> None:
        self.file = file
        self.now = now
        self.cancelled = cancelled
        self.reason_of = reason_of
        self.current_task = current_task
        self.deadline = deadline
        self.bars: list[OpenBar] = []
        self.notes: list[Note] = []
        self._deadlines: list[OpenDeadline] = []

    def open_bars(self) -> Iterable[OpenBar]:
        """Iterate over the bars that have not ended."""
        return (each for each in self.bars if each.end is None)

    def sample(self, coroutine_of: Callable[[Any], Any]) -> None:
        """Record where each open bar waits. ``coroutine_of`` gives the coroutine of a task."""
        at = self.now()
        for each in self.open_bars():
            task = each.task()
            if task is not None and (line := self._line_in(coroutine_of(task), each.code)):
                each.waits_at(at, line)

    def _line_in(self, coroutine: Any, code: CodeType) -> int:
        """Return the line at which ``code`` is suspended, innermost frame first; else that of the program."""
        own = any_line = 0
        while coroutine is not None:
            frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
            if frame is not None and frame.f_code.co_filename == self.file:
                any_line = frame.f_lineno
                own = frame.f_lineno if frame.f_code is code else own
            coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        return own or any_line

    def note(self, text: str, line: int = 0) -> None:
        """Record a line of text."""
        self.notes.append(Note(round(self.now(), 6), text, line))

    def run(self, column: str, horizon: float) -> Run:
        """Return what was recorded until now."""
        bars = [each.bar() for each in self.bars]
        # trio starts the tasks of a turn in random order; the record shall be the same each time.
        turns = groupby(self.notes, lambda note: (note.at, note.line))
        notes = [note for _, turn in turns for note in sorted(turn, key=lambda note: note.text)]
        return Run(column, horizon, bars, notes, sorted({each.deadline() for each in self._deadlines}, key=_order))

    def hold(self, at: float) -> OpenDeadline:
        """Record that something has a deadline at second ``at`` from now on, until it is given to ``release``."""
        for each in self._deadlines:
            if each.at == at and each.gone is None:
                each.holders += 1
                return each
        self._deadlines.append(OpenDeadline(self.now(), at))
        return self._deadlines[-1]

    def release(self, deadline: OpenDeadline) -> None:
        """Record the end of what has this deadline."""
        deadline.holders -= 1
        if not deadline.holders:
            deadline.gone = self.now()


class OpenDeadline:
    """A deadline that is being recorded. It is gone when as many have released it as have held it."""

    def __init__(self, start: float, at: float) -> None:
        self.start = start
        self.at = at
        self.gone: float | None = None
        self.holders = 1

    def deadline(self) -> Deadline:
        """Return it as it is now."""
        return Deadline(round(self.start, 6), round(self.at, 6), None if self.gone is None else round(self.gone, 6))


def _order(deadline: Deadline) -> tuple[float, float]:
    return deadline.start, deadline.at


class _Installed:
    recorder: Recorder | None = None


def install(recorder: Recorder) -> None:
    """Let ``bar`` and ``note`` record here, until the process ends."""
    _Installed.recorder = recorder


class OpenBar:
    """A bar that is being recorded."""

    def __init__(self, recorder: Recorder, name: str, line: int, code: CodeType) -> None:
        self.id = len(recorder.bars) + 1
        self.name = name
        self.line = line
        self.code = code
        self.start = recorder.now()
        self.end: float | None = None
        self.how: End = "running"
        self.reason = ""
        self.stopped_at = 0
        self.parent = _current.get()
        # Weak: a lab shows a task that nothing refers to.
        self.task: Callable[[], Any] = weakref.ref(recorder.current_task())
        self._waits: list[Wait] = []
        self.deadline: OpenDeadline | None = None

    def waits_at(self, at: float, line: int) -> None:
        """Record that the bar waits at this line."""
        if not self._waits or self._waits[-1].line != line:
            self._waits.append(Wait(round(at, 6), line))

    def look_for_deadline(self, recorder: Recorder) -> None:
        """Record that the bar has the deadline which is around the running code, unless it has one already."""
        # Infinite: there is none, or (in trio, below zero) the scope is cancelled.
        if self.deadline is None and isfinite(deadline := recorder.deadline()):
            self.deadline = recorder.hold(deadline)

    def close(self, recorder: Recorder, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Record the end of the bar and its cause."""
        self.end = recorder.now()
        if self.deadline is not None:
            recorder.release(self.deadline)
        self.how, self.reason = _verdict(recorder, error)
        own = 0
        while traceback is not None:
            if traceback.tb_frame.f_code is self.code:
                own = traceback.tb_lineno
            if traceback.tb_frame.f_code.co_filename == recorder.file:
                self.stopped_at = traceback.tb_lineno
            traceback = traceback.tb_next
        self.stopped_at = own or self.stopped_at

    def bar(self) -> Bar:
        """Return it as it is now."""
        end = None if self.end is None else round(self.end, 6)
        waiting = self._waits[-1].line if end is None and self._waits else self.stopped_at
        parent = self.parent.id if self.parent is not None else None
        return Bar(
            self.id,
            parent,
            self.name,
            self.line,
            round(self.start, 6),
            end,
            self.how,
            self.reason,
            waiting,
            self._waits,
        )


def _verdict(recorder: Recorder, error: BaseException | None) -> tuple[End, str]:
    if error is None:
        return "ok", ""
    if isinstance(error, GeneratorExit):
        return "destroyed", "its coroutine was closed while it waited"
    if isinstance(error, recorder.cancelled):
        return "cancelled", recorder.reason_of(error)
    parts = list(leaves(error))
    if all(isinstance(part, recorder.cancelled) for part in parts):
        return "cancelled", recorder.reason_of(parts[0])
    return "failed", in_words(error)


def in_words(error: BaseException) -> str:
    """Return type and text of an exception; of a group, those of its members."""
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__} of " + ", ".join(sorted(in_words(leaf) for leaf in leaves(error)))
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class bar:  # noqa: N801 - it is used as a function, like contextlib.suppress
    """Show the block as a bar of this name. Changes nothing of what the block does."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: OpenBar | None = None

    def __enter__(self) -> Self:
        if (recorder := _Installed.recorder) is not None:
            frame = sys._getframe(1)
            self._open = OpenBar(recorder, self._name, frame.f_lineno, frame.f_code)
            recorder.bars.append(self._open)
            _current.set(self._open)
            self._open.look_for_deadline(recorder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._open is not None and (recorder := _Installed.recorder) is not None:
            self._open.close(recorder, error, traceback)
            # Not by a token: a generator may be closed in another context than it was started in.
            _current.set(self._open.parent)


def note(text: str) -> None:
    """Show this text with the current time."""
    if (recorder := _Installed.recorder) is not None:
        caller = sys._getframe(1)
        recorder.note(text, caller.f_lineno if caller.f_code.co_filename == recorder.file else 0)
        # A deadline may be set after the bar has begun.
        if (around := _current.get()) is not None and around.end is None:
            around.look_for_deadline(recorder)
