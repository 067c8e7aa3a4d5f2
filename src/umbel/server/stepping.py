"""Awaiting step by step, for what plain ``await`` cannot say.

Used by ``crew.py`` and ``http1.py``. Both are what ``await`` is, and one thing more.
"""

from __future__ import annotations

import contextvars
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any


@types.coroutine
def notice_first_wait(work: Awaitable[Any], notice: Callable[[], None]) -> Generator[Any, Any, Any]:
    """``await work``, but call ``notice()`` when it is about to wait for the first time. ``notice`` must not raise."""
    steps: Any = work.__await__()
    try:
        trap = steps.send(None)
    except StopIteration as end:
        return end.value
    notice()
    # What ``yield from`` does, which cannot begin with a step that has been made.
    while True:
        try:
            value = yield trap
        except BaseException as error:  # noqa: BLE001 - it is the work's to handle
            step: Any = steps.throw
            value = error
        else:
            step = steps.send
        try:
            trap = step(value)
        except StopIteration as end:
            return end.value


@types.coroutine
def in_own_context(work: Awaitable[Any]) -> Generator[Any, Any, Any]:
    """``await work``, but with context variables of its own: what it sets, nobody sees who comes after it."""
    run = contextvars.copy_context().run
    steps: Any = work.__await__()
    step, value = steps.send, None
    while True:
        try:
            trap = run(step, value)
        except StopIteration as end:
            return end.value
        try:
            value = yield trap
        except BaseException as error:  # noqa: BLE001 - it is the work's to handle
            step, value = steps.throw, error
        else:
            step = steps.send
