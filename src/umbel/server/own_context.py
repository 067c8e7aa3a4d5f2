"""Await foreign code in a copied context (``contextvars``), and report its first wait.

Theory
------
A task would give foreign code a context of its own, but a task costs three times as much as a small response. trio
makes each step of a task in ``Task.context``. So the first step of the code is made in a copy of that context by hand.
If the code waits, the task gets the copy as its context until the code has ended. Most responses wait for nothing, and
then the task keeps its own.

The copy is made of the task's own context, and not of the one that happens to be current. The step in which foreign
code ends was begun in its copy, and what follows in that step still sees it. A checkpoint behind the end brings the
task back into its own context, so that neither the connection nor its next request sees what was set.

Whether a client that ends its sending has left or has closed its half depends on what came first: its end, or the first
wait of the application. A coroutine hands what it waits for to the event loop by a yield. So its first yield is its
first wait.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context
from typing import Any, cast

import trio
from trio.lowlevel import current_task


def run_in_own_context(work: Awaitable[object], begins_to_wait: Callable[[], object]) -> Coroutine[Any, Any, None]:
    """``await work``; what it sets of context variables, nobody sees who comes after it. To be awaited at once.

    The first step is made by the call itself, which raises what that raises. ``begins_to_wait()``, which must not
    raise, is called before ``work`` waits for the first time, if it waits.
    """
    task = current_task()
    context = task.context.copy()
    steps: Any = work if type(work) is types.CoroutineType else work.__await__()
    try:
        trap = context.run(steps.send, None)
    except StopIteration:
        return DONE
    begins_to_wait()
    return _run_on(task, context, steps, trap)


async def _run_on(task: trio.lowlevel.Task, context: Context, steps: Any, trap: Any) -> None:
    """Make the steps behind the first one, which has waited with ``trap``, in ``context``."""
    outer, task.context = task.context, context
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


@types.coroutine
def _nothing() -> Generator[Any, Any, None]:
    return
    yield


DONE: Coroutine[Any, Any, None] = cast("Any", _nothing())
"""What a function returns that is to be awaited, and has nothing left to wait for. To be awaited any number of times.

It is a generator that has ended. Whoever awaits it gets None at once; a coroutine would have to be made each time.
"""
with suppress(StopIteration):
    DONE.send(None)
