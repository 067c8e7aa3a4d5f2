"""The logging context of a task: its bound fields, and the path of its task names.

Bound fields are in a context variable, which child tasks and trio's threads inherit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar

import trio

PATH_TASKS_MAX = 8
"""The number of innermost tasks that a path names; ``…`` replaces the outer ones."""


class BoundFields:
    """The fields that each record of a task and of its child tasks has. Immutable."""

    __slots__ = ("fields", "names")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.fields = fields
        self.names = fields.keys()


NO_FIELDS = BoundFields({})
_bound: ContextVar[BoundFields] = ContextVar("umbel.logs.bound", default=NO_FIELDS)

current = _bound.get
"""Return the bound fields of the present context."""


def fields_in(context: Context) -> Mapping[str, object]:
    """Return the bound fields of another context, such as that of a task. For any thread."""
    return context.get(_bound, NO_FIELDS).fields


def bind(**fields: object) -> None:
    """Add fields to all later records of this task, and of child tasks and threads that it starts from now on.

    The fields stay bound until the task ends. A record's own field replaces a bound one of the same name.
    """
    before = _bound.get().fields
    _bound.set(BoundFields({**before, **fields} if before else fields))


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Context manager: add fields to all records of the block, and of child tasks and threads that it starts.

    A record's own field replaces a bound one of the same name.
    """
    token = _bound.set(BoundFields({**_bound.get().fields, **fields}))
    try:
        yield
    finally:
        _bound.reset(token)


def task_path() -> str:
    """Return the names of the tasks from the outermost to the current one, with ``/`` between them.

    Only the innermost ``PATH_TASKS_MAX`` are named. Outside of any task, the result is ``thread NAME``.
    """
    try:
        task = trio.lowlevel.current_task()
    except RuntimeError:
        return f"thread {threading.current_thread().name}"
    return "/".join(_names(task))


def _names(task: trio.lowlevel.Task) -> list[str]:
    names: list[str] = []
    at: trio.lowlevel.Task | None = task
    while at is not None:
        if len(names) == PATH_TASKS_MAX:
            names.append("…")
            break
        names.append(at.name.rpartition(".")[2])
        nursery = at.parent_nursery
        at = None if nursery is None else nursery.parent_task
        if at is not None and at.parent_nursery is None:
            break  # trio's own init task
    return names[::-1]
