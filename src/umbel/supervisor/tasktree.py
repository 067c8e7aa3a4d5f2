"""The live tasks of this process as lines of text: who is whose child, and where each waits.

It only looks, and costs nothing until it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import trio

LINES_MAX = 500
"""The tasks that are told; more are counted."""


def task_tree() -> tuple[str, ...]:
    """The tree from trio's root task on; children are indented, nurseries keep their order."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    lines = tuple(islice(_lines(root, 0), LINES_MAX))
    alive = trio.lowlevel.current_statistics().tasks_living
    return lines if alive <= len(lines) else (*lines, f"... and {alive - len(lines)} more")


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task.name}{_place(task)}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda each: each.name):
            yield from _lines(child, depth + 1)


def _place(task: trio.lowlevel.Task) -> str:
    """The innermost frame that is not trio's own."""
    place = ""
    for frame, line in task.iter_await_frames():
        if not frame.f_globals.get("__name__", "").startswith("trio."):
            place = f"  [{Path(frame.f_code.co_filename).name}:{line}]"
    return place
