"""What the task tree reads of trio that has no public name: the one place for it.

Public are the tree itself (``Task.child_nurseries``, ``Nursery.child_tasks``), the frames of a task and the deadline
and shield of a scope that one has. Not public are the scopes that a task has entered, whether a task is scheduled, the
reason of a cancel, whether a shield holds one off, and which task runs, seen from another thread.
``tests/unit/observe/tree/test_trio_internals.py`` fails where trio changes them.

The functions only read, so they may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import trio
from trio._core._run import GLOBAL_RUN_CONTEXT


def is_runnable(task: trio.lowlevel.Task) -> bool:
    """Whether the task is to run in the next turn of the event loop, or runs now."""
    return task._abort_func is None


def entered_scopes(task: trio.lowlevel.Task) -> Iterator[trio.CancelScope]:
    """Yield the cancel scopes that the task has entered and not left, the innermost first.

    Those of its own nurseries are among them, that of the nursery in which it runs is not.
    """
    nursery = task.parent_nursery
    outer = None if nursery is None else nursery._cancel_status
    status = task._cancel_status
    while status is not None and status is not outer:
        yield status._scope
        parent = status._parent
        if parent is None:
            return
        status = parent


def is_cancelled(scope: trio.CancelScope) -> bool:
    """Whether the scope was cancelled. (The public property may cancel it, and needs trio's thread.)"""
    return scope._cancel_called


def holds_off_cancel(task: trio.lowlevel.Task, scope: trio.CancelScope) -> bool:
    """Whether a cancel from outside waits at this shield, which the task has entered."""
    status: Any = task._cancel_status
    while status is not None:
        parent = status._parent
        if status._scope is scope:
            return parent is not None and bool(parent.effectively_cancelled)
        status = parent
    return False


def running_task() -> Callable[[], trio.lowlevel.Task | None]:
    """Return a function that gives the task that runs at the moment in this thread's event loop; None between steps.

    The function may be called from any thread.
    """
    # The attributes of a ``threading.local`` are in a dictionary for each thread; this is the one of this thread.
    attributes = vars(GLOBAL_RUN_CONTEXT)

    def get() -> trio.lowlevel.Task | None:
        task: trio.lowlevel.Task | None = attributes.get("task")
        return task

    return get


def cancel_reason(scope: trio.CancelScope) -> str:
    """Why the scope was cancelled: the reason that was given, or the source; empty: it was not cancelled."""
    reason = scope._cancel_reason
    if reason is None:
        return ""
    return reason.reason or _SOURCES.get(reason.source, reason.source)


_SOURCES = {
    "explicit": "cancelled without a reason",
    "deadline": "its deadline has passed",
    "nursery": "another task of the nursery has failed",
    "shutdown": "the run ends",
    "KeyboardInterrupt": "KeyboardInterrupt",
    "unknown": "no reason known",
}
