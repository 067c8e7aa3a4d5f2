"""The task tree of a trio run as lines of text: each task with its place in the code, below its parent.

A tree is read from trio's own state, so it costs nothing until it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import trio

LINES_MAX = 500
"""The bound on the tasks that are listed; further ones are counted."""


def task_tree() -> tuple[str, ...]:
    """Return the task tree of this trio run from its root task on, one line for each task, children indented.

    Of more than ``LINES_MAX`` tasks, the last line has the number of those that are left out. Must be called in trio.
    """
    root = trio.lowlevel.current_root_task()
    assert root is not None
    lines = tree_of(root)
    alive = trio.lowlevel.current_statistics().tasks_living
    return lines if alive <= len(lines) else (*lines, f"... and {alive - len(lines)} more")


def tree_of(root: trio.lowlevel.Task) -> tuple[str, ...]:
    """Return the first ``LINES_MAX`` lines of the tree below ``root``.

    Raises:
        RuntimeError: the tree changed meanwhile, which can happen if ``root`` runs in another thread.
    """
    return tuple(islice(_lines(root, 0), LINES_MAX))


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name}{_place(task)}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda each: each.name):
            yield from _lines(child, depth + 1)


def _place(task: trio.lowlevel.Task) -> str:
    """Return file and line of the innermost frame outside of trio; empty if there is none."""
    place = ""
    for frame, line in task.iter_await_frames():
        if not frame.f_globals.get("__name__", "").startswith("trio."):
            place = f"  [{Path(frame.f_code.co_filename).name}:{line}]"
    return place
