"""Finds steps that hold the event loop, and turns that take long, while the loop is watched closely.

Theory
------
A *turn* of trio's event loop runs each task that can run for one *step*, until it waits again. Two parties watch:

- ``_Turns``, an instrument, notes when each turn begins and ends. It has only the two functions that trio calls once a
  turn; functions that trio calls for each step would cost every task.
- A thread looks every ``SAMPLE_S`` at the task that runs now. If it sees the same task in the same turn again, this
  step has lasted since it saw the task first, because a task has at most one step in a turn. A step of ``STEP_S`` is
  reported when it has ended, at the line that was seen most often. So a step is found if it takes ``STEP_S`` plus
  ``SAMPLE_S``, and its duration is right to some ``SAMPLE_S``.

*The interpreter's lock.* While C code keeps it, the thread cannot look. It gets the lock at the first line of Python
after that, so a look that comes ``STEP_S`` late sees the task that kept the lock (unless another thread did), and the
step counts from the time at which the look was due.

*A busy machine.* A step that waits for a core, since other processes have them all, is not long by itself. Linux says
for how long a thread has waited so (``_RunDelay``); this time is subtracted. Elsewhere it counts.

*Turns.* A turn of ``LAG_S`` is a lag, unless one step was more than half of it, which is found then.

Everything that the thread reads is replaced as a whole, or belongs to objects that it holds weakly.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple
from weakref import ref

import trio

from ...logs.context import fields_in
from ..tree.text import duration
from ..tree.trio_internals import running_task
from .book import LintBook
from .lint import LAG, LONG_STEP
from .place import place_of_stack

STEP_S = 0.010
"""Seconds from which on a step is a lint."""
SAMPLE_S = 0.005
"""Seconds between two looks."""
LAG_S = 0.050
"""Seconds from which on a turn is a lint."""
_PLACES_MAX = 100
_SCHEDSTAT_BYTES_MAX = 128


class _Turns(trio.abc.Instrument):
    """Notes when turns begin and end, in the event loop's thread."""

    def __init__(self, on_end: Callable[[int, float], None]) -> None:
        self.present: tuple[int, float] | None = None
        """The number of the present turn and the time of its beginning; None between two turns."""
        self._on_end = on_end
        self._number = 0

    def forget(self) -> None:
        """Forget the turn in which it was uninstalled: whoever asks again would take all time since then for a turn."""
        self.present = None

    def after_io_wait(self, timeout: float) -> None:
        self._number += 1
        self.present = self._number, perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        present, self.present = self.present, None
        if present is not None and (took := perf_counter() - present[1]) >= LAG_S:
            self._on_end(present[0], took)


class _RunDelay:
    """For how many seconds a thread of this process has waited for a core, in all; 0 where Linux does not say so.

    The second number of ``schedstat``: https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat
    """

    def __init__(self, thread: int) -> None:
        try:
            self._file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def read(self) -> float:
        try:
            return int(os.pread(self._file, _SCHEDSTAT_BYTES_MAX, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0

    def close(self) -> None:
        file, self._file = self._file, -1  # First, since another thread may be about to read.
        if file >= 0:
            os.close(file)


class _Step:
    """A step that is being watched."""

    def __init__(self, turn: int, task: trio.lowlevel.Task, since: float, delay: float) -> None:
        self.turn = turn
        self.task = ref(task)
        self.name = task.name
        self.request_id = str(fields_in(task.context).get("request_id", ""))
        self.since = since
        self.seen = since
        self.delay = self.delay_at_first = delay
        """The run delay of the loop's thread."""
        self.places: Counter[str] = Counter()

    @property
    def lasted(self) -> float:
        """The seconds for which it has been seen, without those in which it waited for a core."""
        return self.seen - self.since - (self.delay - self.delay_at_first)


class RunningStep(NamedTuple):
    """A step that holds the event loop at this moment."""

    seconds: float
    where: str


class StepWatch:
    """Watches the event loop in which it is created. ``sample`` is for the watching thread.

    Args:
        book: takes the findings.
    """

    def __init__(self, book: LintBook) -> None:
        self.instrument = _Turns(self._on_long_turn)
        """Must be installed while ``sample`` is called."""
        self._book = book
        self._thread = threading.get_ident()
        self._native_thread = threading.get_native_id()
        self._loop_delay: _RunDelay | None = None
        self._own_delay: _RunDelay | None = None
        """Both are there while ``run`` runs."""
        self._delays = 0.0, 0.0
        """The run delays of the loop's thread and of the watching thread at the look before."""
        self._running = running_task()
        self._step: _Step | None = None
        self._turn = -1, 0.0
        """The number of the latest turn that was looked at, and the run delay of the loop's thread before it."""
        self._explained = -1
        """The number of the latest turn of which a step explains most."""

    def run(self, stopped: threading.Event) -> None:
        """Look every ``SAMPLE_S`` until ``stopped``. For the watching thread."""
        loop_delay, own_delay = _RunDelay(self._native_thread), _RunDelay(threading.get_native_id())
        self._loop_delay, self._own_delay = loop_delay, own_delay
        try:
            while not stopped.is_set():
                due = perf_counter() + SAMPLE_S
                time.sleep(SAMPLE_S)  # Waiting for ``stopped`` would cost twice as much.
                self.sample(due)
        finally:
            self._end_step()
            self._loop_delay = self._own_delay = None
            loop_delay.close()
            own_delay.close()

    def running_step(self) -> RunningStep | None:
        """The step that holds the event loop now, if it is a lint already. For any thread."""
        step, present = self._step, self.instrument.present
        if step is None or present is None or step.turn != present[0] or step.lasted < STEP_S or not step.places:
            return None
        return RunningStep(perf_counter() - step.since, _most_often(step.places))

    def sample(self, due: float) -> None:
        """Look once; ``due`` is when the look was to be (``perf_counter()``)."""
        now = perf_counter()
        present = self.instrument.present
        task = self._running()
        before, own_before = self._delays
        delay, own = self._delays = _read(self._loop_delay), _read(self._own_delay)
        if present is None or task is None or now - present[1] < SAMPLE_S:
            self._end_step()
            return
        turn, began = present
        if turn != self._turn[0]:
            self._turn = turn, before
        step = self._step
        if step is None or step.turn != turn or step.task() is not task:
            self._end_step()
            if now - due - (own - own_before) >= STEP_S and began <= due:
                step = _Step(turn, task, due, before)  # It has kept the interpreter's lock since then.
            else:
                step = _Step(turn, task, now, delay)
            self._step = step
        step.seen, step.delay = now, delay
        frame = sys._current_frames().get(self._thread)
        if frame is not None and ((where := place_of_stack(frame)) in step.places or len(step.places) < _PLACES_MAX):
            step.places[where] += 1
        if step.lasted >= (now - began) / 2:
            self._explained = turn

    def _end_step(self) -> None:
        step, self._step = self._step, None
        if step is not None and step.lasted >= STEP_S and step.places:
            of = f"{step.name}, request {step.request_id}" if step.request_id else step.name
            detail = f"for {duration(step.lasted)} at most, in the task {of}"
            self._book.add(LONG_STEP, _most_often(step.places), step.lasted, detail)

    def _on_long_turn(self, turn: int, took: float) -> None:
        """Note a long turn, in the event loop's thread."""
        seen, delay = self._turn
        if seen == turn:
            took -= _read(self._loop_delay) - delay
        if turn != self._explained and took >= LAG_S:
            self._book.add(LAG, "", took, f"a turn took {duration(took)} at most")


def _read(delay: _RunDelay | None) -> float:
    return 0.0 if delay is None else delay.read()


def _most_often(places: Counter[str]) -> str:
    return places.copy().most_common(1)[0][0]
