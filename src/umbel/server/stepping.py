"""Awaiting with a call just before the first time that it really waits.

Used by ``http1.py``: an application that answers without waiting needs nobody to watch its client meanwhile.
"""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any


@types.coroutine
def notice_first_wait(work: Awaitable[object], notice: Callable[[], None]) -> Generator[Any, Any, None]:
    """``await work``, but call ``notice()`` when it is about to wait for the first time. ``notice`` must not raise."""
    steps: Any = work.__await__()
    try:
        trap = next(steps)
    except StopIteration:
        return
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
        except StopIteration:
            return
