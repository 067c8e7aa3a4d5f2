"""Awaiting in two parts: the first step of some work, and what is left of it if it waits.

Most work here never waits; whoever looks at its first step finds out, and what it does about the rest costs nothing
then.
"""

from __future__ import annotations

import contextvars
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any

Run = Callable[..., Any]
"""Calls a function with arguments; ``Context.run`` does it among context variables of its own."""


@types.coroutine
def rest_of(steps: Any, trap: Any, run: Run | None = None) -> Generator[Any, Any, Any]:
    """What ``await`` does after the first step of ``steps`` has waited with ``trap``; ``run`` makes the other steps."""
    while True:
        try:
            value = yield trap
        except BaseException as error:  # noqa: BLE001 - it is the work's to handle
            step = steps.throw
            value = error
        else:
            step = steps.send
        try:
            trap = step(value) if run is None else run(step, value)
        except StopIteration as end:
            return end.value


async def in_own_context(work: Awaitable[Any], about_to_wait: Callable[[], None]) -> Any:
    """``await work``, but with context variables of its own: what it sets, nobody sees who comes after it.

    ``about_to_wait``, which must not raise, is called when it waits for the first time.
    """
    run = contextvars.copy_context().run
    steps: Any = work if isinstance(work, types.CoroutineType) else work.__await__()
    try:
        trap = run(steps.send, None)
    except StopIteration as end:
        return end.value
    about_to_wait()
    return await rest_of(steps, trap, run)
