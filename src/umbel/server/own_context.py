"""Own context: run foreign code in a copy of the task's context variables, and report its first wait.

Theory
------
Foreign code runs in a task that serves other requests afterwards, so its context variables must not remain. A task of
its own would do, but costs three times as much as a small response.

trio runs each step of a task (from one yield of its coroutine to the next) in ``Task.context``. So:

1. The first step of the code is run by hand, in a copy of ``Task.context``. Most responses need no second step.
2. If the code yields, ``Task.context`` is replaced by the copy until the code has ended. trio then runs all later steps
   in the copy.
3. The step in which the code ends was begun in the copy, and the rest of that step still sees the copy. So a shielded
   checkpoint follows, and the next step runs in the restored context.

The copy is made of ``Task.context``, not of the current context: within such a last step the two differ.

A coroutine waits by yielding to the event loop, so the first yield of the code is its first wait. That moment decides
whether a client that ends its sending has half-closed or has left.
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
    """Run ``work`` in a copy of the task's context, and drop its result. Await the returned coroutine at once.

    The call itself runs the first step of ``work``, and raises what that step raises; later steps raise in the
    ``await``. ``begins_to_wait()`` is called before the first wait, if there is one, and must not raise. A cancel is
    raised in ``work``, as with a plain ``await``.
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
    """Run the steps after the first one, which yielded ``trap``, in ``context``."""
    outer, task.context = task.context, context
    try:
        await _rest_of(steps, trap)
    finally:
        task.context = outer
        await trio.lowlevel.cancel_shielded_checkpoint()


@types.coroutine
def _rest_of(steps: Any, trap: Any) -> Generator[Any, Any, None]:
    """Continue ``steps`` as ``await`` would, from its first yield ``trap`` on."""
    while True:
        try:
            value = yield trap
        except BaseException as error:  # noqa: BLE001 - passed to the work
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
"""An awaitable that returns None at once, any number of times: the result of a function with nothing left to wait for.

It is a generator that has ended. A coroutine would have to be made for each call.
"""
with suppress(StopIteration):
    DONE.send(None)
