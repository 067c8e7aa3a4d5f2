"""Cancel an operation at every checkpoint in turn.

``for_every_checkpoint`` runs the operation repeatedly. Run number n is cancelled just before the n-th scheduler step of
the operation's tasks. With ``any_task`` the steps of all tasks count, for example those of a socket reader that calls
the operation back. The last run is the one in which the operation ends before its cancel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

STEPS_MAX = 2000


class _CancelAtStep(trio.abc.Instrument):
    def __init__(
        self, scope: trio.CancelScope, ours: set[trio.lowlevel.Task], step: int, reason: str, any_task: bool
    ) -> None:
        self._scope = scope
        self._ours = ours
        self._any_task = any_task
        self._left = step
        self._reason = reason

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        nursery = task.parent_nursery
        if nursery is not None and nursery.parent_task in self._ours:
            self._ours.add(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task in self._ours or (self._any_task and self._ours):
            self._left -= 1
            if self._left == 0:
                self._scope.cancel(reason=self._reason)


async def _cancelled_at(step: int, operation: Callable[[], Awaitable[object]], reason: str, any_task: bool) -> bool:
    """Run the operation once and return whether it was cancelled before its end."""
    with trio.CancelScope() as scope:
        ours: set[trio.lowlevel.Task] = set()
        instrument = _CancelAtStep(scope, ours, step, reason, any_task)
        trio.lowlevel.add_instrument(instrument)
        try:
            async with trio.open_nursery() as nursery:

                async def main() -> None:
                    ours.add(trio.lowlevel.current_task())
                    await trio.lowlevel.checkpoint()
                    await operation()

                nursery.start_soon(main)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called


async def for_every_checkpoint(
    operation: Callable[[], Awaitable[object]],
    check: Callable[[], Awaitable[None] | None],
    *,
    reason: str = "client-gone",
    any_task: bool = False,
) -> int:
    """Cancel ``operation`` at each of its checkpoints in turn, and call ``check`` after each run.

    Args:
        operation: starts from a fresh state in each run.
        check: asserts the invariants; it is awaited if it returns an awaitable.
        reason: the reason of the cancel.
        any_task: count the steps of all tasks, not only of the operation's.

    Returns:
        The number of steps at which the operation was cancelled.

    Raises:
        AssertionError: the operation takes more than STEPS_MAX steps.
    """
    for step in range(1, STEPS_MAX):
        cut = await _cancelled_at(step, operation, reason, any_task)
        checked = check()
        if checked is not None:
            await checked
        if not cut:
            return step - 1
    raise AssertionError(f"more than {STEPS_MAX} checkpoints")
