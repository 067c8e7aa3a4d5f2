"""What every record of a task has without saying it: the fields that were bound around it, and the task's path.

Bound by the gateway per request and by anybody with ``bound``; read by ``encode.py``. Contextvars carry it into child
tasks and into trio's threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import trio

PATH_TASKS_MAX = 8
"""The innermost tasks that a path names; what is above stands as ``…``."""


class Bound:
    """Fields that belong to every record of a task and its children."""

    __slots__ = ("fields", "names")

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.fields = fields
        self.names = fields.keys()


NOTHING = Bound({})
_bound: ContextVar[Bound] = ContextVar("umbel.logs.bound", default=NOTHING)


current = _bound.get
"""What is bound here."""


def bind(**fields: object) -> None:
    """Add fields to every later record of this task and of the children that it starts from now on.

    For the task whose life they share, such as a request's; ``bound`` takes them back at the end of a block.
    """
    before = _bound.get().fields
    _bound.set(Bound({**before, **fields} if before else fields))


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add fields to every record that is made within the block, in child tasks and threads of it too."""
    token = _bound.set(Bound({**_bound.get().fields, **fields}))
    try:
        yield
    finally:
        _bound.reset(token)


def task_path() -> str:
    """The names of the tasks from the outermost to this one; of a foreign thread its name."""
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
