"""The answer to ``umbel ctl tree``: the task trees of the master and of its workers, as one.

A worker whose loop is blocked does not answer, and that is said.
"""

from __future__ import annotations

import os
from typing import Any

from . import messages
from .master import Master
from .tasktree import task_tree

_ANSWER_S = 2.0


async def trees(master: Master) -> list[dict[str, Any]]:
    """One tree per process, the master's first."""
    workers = master.workers
    answers = await master.asking.ask(workers, messages.AskTree(), messages.Tree, _ANSWER_S)
    told = [{"process": "master", "pid": os.getpid(), "lines": list(task_tree())}]
    for worker in workers:
        answer = answers.get(worker)
        lines = ["no answer: its loop is blocked"] if answer is None else list(answer.lines)
        told.append({"process": f"worker {worker.slot}", "pid": worker.pid, "lines": lines})
    return told
