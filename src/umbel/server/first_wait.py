"""Await something, and notice when it waits for the first time.

Whether a client that ends its sending has left or has closed its half depends on what came first: its end, or the first
wait of the application. That moment is known to the application's task alone.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


@types.coroutine
def noticing_first_wait(
    steps: Coroutine[Any, Any, object], begins_to_wait: Callable[[], object]
) -> Generator[Any, Any, None]:
    """Run ``steps`` to its end, as ``await`` does; ``begins_to_wait()`` is called before its first wait, if it waits.

    A coroutine hands what it waits for to the event loop by a yield. So the first yield is its first wait.
    """
    try:
        trap = steps.send(None)
        begins_to_wait()
        while True:
            try:
                value = yield trap
            except BaseException as error:  # noqa: BLE001 - it is for the coroutine to handle
                trap = steps.throw(error)
            else:
                trap = steps.send(value)
    except StopIteration:
        return
