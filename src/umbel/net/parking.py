"""Parking a task until a callback wakes it: trio's ``wait_task_rescheduled`` and ``reschedule``, at half their cost.

For each wait trio makes a coroutine, a request and an outcome, although a wait without a value needs none of its own.
Here one request serves any number of waits (``parking_request``), and one outcome all wake-ups (``WOKEN``).
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import trio
from trio.lowlevel import current_task, reschedule, wait_task_rescheduled


class _Woken:
    """Outcome of a wake-up without a value; one object for all wake-ups, where trio makes one for each."""

    __slots__ = ()

    def unwrap(self) -> None:
        """Return None, as ``outcome.Value(None)`` does, but any number of times."""


WOKEN: Any = _Woken()
"""What ``reschedule`` gives a task that waits in ``park``."""


def parking_request(abort: Callable[[Any], trio.lowlevel.Abort]) -> object:
    """The object that ``wait_task_rescheduled(abort)`` yields to trio to park a task.

    The object holds only ``abort`` and never changes, so a task may yield the same object for each wait.
    """
    waiting = wait_task_rescheduled(abort)  # noqa: ASYNC105 - only its request is taken; it is not awaited
    request: object = waiting.send(None)
    waiting.close()
    return request


@types.coroutine
def park(request: object) -> Generator[Any, Any, None]:
    """Park the task with a request that ``parking_request`` has made. A cancel is raised here."""
    (yield request).unwrap()


_REQUEST = parking_request(lambda _: trio.lowlevel.Abort.SUCCEEDED)


class Parking:
    """Wait of one task until a callback calls ``wake``.

    A ``wake`` that comes before the wait is not lost: it sets ``woken``, which the task checks before it parks::

        if not parking.woken:
            await parking.park()
        parking.woken = False

    Each ``park`` ends by a wake or by a cancel, never by both. If the task is cancelled after a wake, ``park`` returns,
    and the cancel is raised at the next checkpoint.
    """

    woken = False
    """Whether ``wake`` was called while no task was parked."""
    _task: trio.lowlevel.Task | None = None

    def wake(self) -> None:
        """Wake the parked task, or make the next wait return at once."""
        task, self._task = self._task, None
        # trio forgets ``custom_sleep_data`` when it reschedules a task: one that a cancel has rescheduled already must
        # not be rescheduled again.
        if task is not None and task.custom_sleep_data is self:
            reschedule(task, WOKEN)
        else:
            self.woken = True

    def park(self) -> Awaitable[object]:
        """Wait for ``wake``. One task at a time; the result must be awaited at once."""
        self._task = task = current_task()
        task.custom_sleep_data = self
        return park(_REQUEST)
