"""Task trees as lines of text, of this process or of all: each task with its place in the code, below its parent.

A tree is read from trio's own state, so it costs nothing until it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from . import messages

if TYPE_CHECKING:
    from ..master.master import Master

LINES_MAX = 500
"""The bound on the tasks that are listed; further ones are counted."""
_ANSWER_S = 2.0


async def all_task_trees(master: Master) -> list[dict[str, Any]]:
    """Return the task trees of the master and of all ready workers, each with ``process``, ``pid`` and ``lines``.

    Waits for the workers for at most 2 s. The tree of a worker that does not answer in this time is one line that says
    so: most likely its event loop is blocked.
    """
    workers = master.workers
    answers = await master.queries.ask(workers, messages.TreeQuery(), messages.Tree, _ANSWER_S)
    trees = [{"process": "master", "pid": os.getpid(), "lines": list(task_tree())}]
    for worker in workers:
        answer = answers.get(worker)
        silent = f"no answer within {_ANSWER_S:g} s: its event loop is probably blocked"
        lines = [silent] if answer is None else list(answer.lines)
        trees.append({"process": f"worker {worker.slot}", "pid": worker.pid, "lines": lines})
    return trees


def task_tree() -> tuple[str, ...]:
    """Return the task tree of this process from trio's root task on, one line for each task, children indented.

    Of more than ``LINES_MAX`` tasks, the last line has the number of those that are left out. Must be called in trio.
    """
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
    """Return file and line of the innermost frame outside of trio; empty if there is none."""
    place = ""
    for frame, line in task.iter_await_frames():
        if not frame.f_globals.get("__name__", "").startswith("trio."):
            place = f"  [{Path(frame.f_code.co_filename).name}:{line}]"
    return place
