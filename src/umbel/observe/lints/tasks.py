"""Finds lints by looking at all tasks: growing nurseries, open shields, full channels, limiters without a free place.

A look walks through the tasks in slices, as the reader of the task tree does. What lasts is told from what passes by
comparing looks: objects are remembered weakly, with the time at which something was first seen of them. So there is
nothing to find at the first look.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import perf_counter
from types import CodeType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import trio

from ..tree.text import duration
from ..tree.trio_internals import entered_scopes, holds_off_cancel
from ..tree.waits import is_machinery
from .book import LintBook
from .lint import BUSY_LIMITER, FULL_QUEUE, GROWING_NURSERY, OPEN_SHIELD
from .place import place_of

SLICE_S = 0.002
"""Seconds after which a look lets other tasks run."""
GROWTH_S, GROWTH_RISES, GROWTH_TASKS = 20.0, 8, 20
"""A nursery only grows if it did not shrink for so many seconds, was larger in so many looks, and got so many tasks."""
SHIELD_S = 1.0
"""Seconds for which a task is seen within an open shield until it is a lint."""
FULL_S = 1.0
"""Seconds for which a channel is seen full, or a limiter without a free place, until it is a lint."""
_TASKS_PER_CLOCK = 16
_OWN_TASKS = "umbel."
"""Tasks of Umbel itself, some of which are shielded until their owners end them: writers of logs, for instance."""
_NAMES_LOOKED_AT, _SHOWN = 16, 3
_SEND = "MemorySendChannel.send"
_LIMITER = "CapacityLimiter.acquire_on_behalf_of"
_THREAD = "to_thread_run_sync"
_FUNCTIONS = frozenset({_SEND, _LIMITER, _THREAD})
"""The functions of trio that are looked for, by ``co_qualname``."""


class ObservedQueue(NamedTuple):
    """A bounded queue that is no channel of trio, such as that of a log."""

    name: str
    size: int
    lost: int
    """How many of its items were lost so far because it was full."""


Queues = Callable[[], Iterable[ObservedQueue]]


class _Growth:
    """How a nursery has grown since it was last seen to shrink."""

    __slots__ = ("is_found", "rises", "since", "size", "size_at_first")

    def __init__(self, size: int, now: float) -> None:
        self.since = now
        self.size_at_first = self.size = size
        self.rises = 0
        self.is_found = False


class _Wait(NamedTuple):
    """Where a task is, and in which of the functions of trio that are looked for."""

    code: CodeType | None
    line: int
    function: str
    """Empty: none that is looked for."""
    object: Any
    """The channel or the limiter whose method it is; of a function that runs in a thread the limiter of the thread."""

    def where(self, task: trio.lowlevel.Task) -> str:
        """The place outside of trio; the name of the task if it is nowhere else."""
        return task.name if self.code is None else place_of(self.code, self.line)


class _Lasting:
    """What looks have seen of objects (that a scope is an open shield, that a channel is full), and since when."""

    def __init__(self) -> None:
        self._before: WeakKeyDictionary[Any, tuple[float, bool]] = WeakKeyDictionary()
        self._now: WeakKeyDictionary[Any, tuple[float, bool]] = WeakKeyDictionary()

    def begin_look(self) -> None:
        """Forget what the latest look has not seen."""
        self._before, self._now = self._now, WeakKeyDictionary()

    def see(self, thing: Any, now: float, least: float) -> tuple[float, bool] | None:
        """Note that it is seen.

        Returns:
            If it has been seen in all looks for ``least`` seconds: for how many, and whether this is the first time
            that they are so many. None if not, and if this look has seen it before.
        """
        if thing in self._now:
            return None
        since, is_found = self._before.get(thing, (now, False))
        lasts = now - since >= least
        self._now[thing] = since, lasts
        return (now - since, not is_found) if lasts else None


class TaskLints:
    """Looks at the tasks of one trio run.

    Args:
        book: takes the findings.
        queues: gives further queues.
    """

    def __init__(self, book: LintBook, queues: Queues) -> None:
        self._book = book
        self._queues = queues
        self._growth: WeakKeyDictionary[trio.Nursery, _Growth] = WeakKeyDictionary()
        self._lasting = _Lasting()
        self._lost: dict[str, int] = {}
        self._limiters: dict[trio.CapacityLimiter, str] = {}
        """Of the present look: the limiters at which tasks wait, with the place of one."""
        self._in_threads: dict[trio.CapacityLimiter, Counter[str]] = {}
        """Of the present look: by limiter, the places of tasks whose function runs in a thread."""

    async def look(self) -> None:
        """Look at all tasks once. A slice holds the event loop for little more than ``SLICE_S``."""
        root = trio.lowlevel.current_root_task()
        assert root is not None
        walk = self._walk(root, trio.current_time())
        more = True
        while more:
            until = perf_counter() + SLICE_S
            while more and perf_counter() < until:
                for _ in range(_TASKS_PER_CLOCK):
                    more = more and next(walk, False)
            await trio.lowlevel.checkpoint()

    def _walk(self, root: trio.lowlevel.Task, now: float) -> Iterator[bool]:
        """Yield True after each task."""
        self._lasting.begin_look()
        self._limiters, self._in_threads = {}, {}
        todo = [root]
        while todo:
            task = todo.pop()
            if getattr(task.coro, "cr_frame", task) is None:
                continue  # It has ended meanwhile.
            wait = _wait(task)
            for nursery in task.child_nurseries:
                todo += nursery.child_tasks
                self._look_at_nursery(nursery, task, wait, now)
            self._look_at_scopes(task, wait, now)
            self._look_at_wait(task, wait, now)
            yield True
        self._look_at_limiters(now)
        self._look_at_queues()
        self._limiters, self._in_threads = {}, {}  # They must not be kept alive until the next look.

    def _look_at_nursery(self, nursery: trio.Nursery, task: trio.lowlevel.Task, wait: _Wait, now: float) -> None:
        size = len(nursery.child_tasks)
        growth = self._growth.get(nursery)
        if growth is None or size < growth.size:
            self._growth[nursery] = _Growth(size, now)
            return
        if size == growth.size:
            return
        growth.size = size
        growth.rises += 1
        more, seconds = size - growth.size_at_first, now - growth.since
        if seconds < GROWTH_S or growth.rises < GROWTH_RISES or more < GROWTH_TASKS:
            return
        names = sorted({child.name for child in islice(nursery.child_tasks, _NAMES_LOOKED_AT)})
        detail = f"{size} tasks ({', '.join(names[:_SHOWN])}), {more} more than {duration(seconds)} before"
        self._book.add(GROWING_NURSERY, wait.where(task), size, detail, again=not growth.is_found)
        growth.is_found = True

    def _look_at_scopes(self, task: trio.lowlevel.Task, wait: _Wait, now: float) -> None:
        for scope in entered_scopes(task):
            if not scope.shield or scope.deadline != math.inf:
                continue
            holds_off = holds_off_cancel(task, scope)
            if task.name.startswith(_OWN_TASKS) and not holds_off:
                continue
            if (lasts := self._lasting.see(scope, now, SHIELD_S)) is not None:
                seconds, begins = lasts
                held = ", while a cancel waits at it" if holds_off else ""
                detail = f"the task {task.name} is within it for {duration(seconds)}{held}"
                self._book.add(OPEN_SHIELD, wait.where(task), seconds, detail, again=begins)

    def _look_at_wait(self, task: trio.lowlevel.Task, wait: _Wait, now: float) -> None:
        if wait.function == _THREAD:
            self._in_threads.setdefault(wait.object, Counter())[wait.where(task)] += 1
        elif wait.function == _LIMITER:
            self._limiters.setdefault(wait.object, wait.where(task))
        elif wait.function == _SEND:
            statistics = wait.object.statistics()
            bound = statistics.max_buffer_size
            if not 0 < bound <= statistics.current_buffer_used:
                return  # There is room, or it hands over without a queue.
            if (lasts := self._lasting.see(wait.object, now, FULL_S)) is not None:
                senders = statistics.tasks_waiting_send
                wait_words = "1 sender waits" if senders == 1 else f"{senders} senders wait"
                detail = f"{bound:g} of {bound:g} places are taken, and {wait_words}"
                self._book.add(FULL_QUEUE, wait.where(task), senders, detail, again=lasts[1])

    def _look_at_limiters(self, now: float) -> None:
        threads = trio.to_thread.current_default_thread_limiter()
        for limiter in {threads, *self._limiters}:
            statistics = limiter.statistics()
            waiting, total = statistics.tasks_waiting, statistics.total_tokens
            if not waiting or statistics.borrowed_tokens < total:
                continue
            if (lasts := self._lasting.see(limiter, now, FULL_S)) is None:
                continue
            words = "1 task waits" if waiting == 1 else f"{waiting} tasks wait"
            places = self._in_threads.get(limiter, Counter[str]()).most_common(_SHOWN)
            held = "".join(f"; {count} in a thread for {place}" for place, count in places)
            detail = f"{statistics.borrowed_tokens} of {total:g} places are taken, and {words}{held}"
            where = "trio's limiter of threads" if limiter is threads else self._limiters.get(limiter, "")
            self._book.add(BUSY_LIMITER, where, waiting, detail, again=lasts[1])

    def _look_at_queues(self) -> None:
        for queue in self._queues():
            lost = queue.lost - self._lost.get(queue.name, queue.lost)
            self._lost[queue.name] = queue.lost
            if lost > 0:
                detail = f"{lost} were lost since the look before, and {queue.size} wait"
                self._book.add(FULL_QUEUE, queue.name, lost, detail)


def _wait(task: trio.lowlevel.Task) -> _Wait:
    code: CodeType | None = None
    line, function, method = 0, "", None
    for frame, number in task.iter_await_frames():
        if not is_machinery(str(frame.f_globals.get("__name__", ""))):
            code, line, function = frame.f_code, number, ""
        # A task that waits for a thread is in the limiter's function within that of the thread.
        elif not function or function == _THREAD:
            name = frame.f_code.co_qualname
            if name in _FUNCTIONS:
                function, method = name, frame.f_locals.get("limiter" if name == _THREAD else "self")
    return _Wait(code, line, function, method)
