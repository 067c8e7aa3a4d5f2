"""Await something with context variables of its own, and notice when it waits for the first time.

Theory
------
A task would give foreign code a context of its own, but a task costs three times as much as a small answer. trio makes
each step of a task in ``Task.context``. So the first step of the code is made in a copy of that context by hand. If the
code waits, the task gets the copy as its context until the code has ended. Most answers wait for nothing, and then the
task keeps its own.

The copy is made of the task's own context, and not of the one that happens to be current. The step in which foreign
code ends was begun in its copy, and what follows in that step still sees it. A checkpoint behind the end brings the
task back into its own context, so that neither the connection nor its next request sees what was set.

Whether a client that ends its sending has left or has closed its half depends on what came first: its end, or the first
wait of the application. A coroutine hands what it waits for to the event loop by a yield. So its first yield is its
first wait.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import trio
from trio.lowlevel import current_task


async def run_in_own_context(work: Awaitable[object], begins_to_wait: Callable[[], object]) -> None:
    """``await work``; what it sets of context variables, nobody sees who comes after it.

    ``begins_to_wait()``, which must not raise, is called before it waits for the first time, if it waits.
    """
    task = current_task()
    outer = task.context
    context = outer.copy()
    steps: Any = work if type(work) is types.CoroutineType else work.__await__()
    try:
        trap = context.run(steps.send, None)
    except StopIteration:
        return
    begins_to_wait()
    task.context = context
    try:
        await _rest_of(steps, trap)
    finally:
        task.context = outer
        await trio.lowlevel.cancel_shielded_checkpoint()


@types.coroutine
def _rest_of(steps: Any, trap: Any) -> Generator[Any, Any, None]:
    """What ``await`` does after the first step of ``steps`` has waited with ``trap``."""
    while True:
        try:
            value = yield trap
        except BaseException as error:  # noqa: BLE001 - it is the work's to handle
            step, value = steps.throw, error
        else:
            step = steps.send
        try:
            trap = step(value)
        except StopIteration:
            return
