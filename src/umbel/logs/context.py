"""The logging context of a task: bound fields, and the path of task names.

Bound fields are in a context variable, so that child tasks and trio's threads inherit them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import trio

PATH_TASKS_MAX = 8
"""The innermost tasks that a path names; what is above stands as ``…``."""


class BoundFields:
    """Fields that every record of a task and of its children has."""

    __slots__ = ("fields", "names")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.fields = fields
        self.names = fields.keys()


NO_FIELDS = BoundFields({})
_bound: ContextVar[BoundFields] = ContextVar("umbel.logs.bound", default=NO_FIELDS)

current = _bound.get
"""Return the fields that are bound here."""


def bind(**fields: object) -> None:
    """Add fields to every later record of this task and of children that it starts from now on.

    The fields stay until the task ends; ``bound`` removes them at the end of a block.
    """
    before = _bound.get().fields
    _bound.set(BoundFields({**before, **fields} if before else fields))


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to every record within the block, also of its child tasks and threads."""
    token = _bound.set(BoundFields({**_bound.get().fields, **fields}))
    try:
        yield
    finally:
        _bound.reset(token)


def task_path() -> str:
    """Return the names of the tasks from the outermost to this one; in a foreign thread the thread's name."""
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
