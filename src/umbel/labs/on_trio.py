"""Runs a program on trio, with a clock that jumps to the next timer when all tasks wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from trio.testing import MockClock

from .kit import Recorder, in_words, install
from .model import Run


class _Sampler(trio.abc.Instrument):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0:
            self._recorder.sample(lambda task: task.coro)


def _current_task() -> Any:
    return trio.lowlevel.current_task()


def _reason(error: BaseException) -> str:
    source, reason = getattr(error, "source", "unknown"), getattr(error, "reason", None)
    words = {"deadline": "a deadline is over", "nursery": "a task of its nursery has failed"}
    return f"Cancelled: {reason or words.get(source, source)}"


def run_on_trio(
    main: Callable[[], Awaitable[None]], file: str, column: str, *, horizon: float, real_time: bool, grace: float
) -> Run:
    """Run ``main`` and then the event loop until the horizon. Return the record."""
    # Not zero: an instrument must be able to tell a wait from a look at the sockets.
    clock = None if real_time else MockClock(autojump_threshold=max(grace, 1e-6))

    async def program(recorder: Recorder) -> None:
        try:
            await main()
        except Exception as error:  # noqa: BLE001 - what ends the program is part of the record
            recorder.note(f"the program ends with {in_words(error)}")

    async def lab() -> Run:
        started = trio.current_time()
        recorder = Recorder(
            file,
            lambda: trio.current_time() - started,
            trio.Cancelled,
            _reason,
            _current_task,
            lambda: trio.current_effective_deadline() - started,
        )
        install(recorder)
        trio.lowlevel.add_instrument(_Sampler(recorder))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(program, recorder)
                await trio.sleep_until(started + horizon)
                run = recorder.run(column, horizon)
                nursery.cancel_scope.cancel(reason="the lab is over")
                return run
        except* RuntimeError as group:  # The program has broken trio's own bookkeeping, of which trio complains.
            kind, complaint, *_ = in_words(group.exceptions[0]).split(": ")
            recorder.note(f"trio raises {kind}: {complaint}")
        await trio.sleep_until(started + horizon)
        return recorder.run(column, horizon)

    return trio.run(lab, clock=clock)
