"""Runs a program on asyncio's own event loop, with a clock that jumps to the next timer when all tasks wait."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any

from .kit import Recorder, in_words, install
from .model import Run

_NO_TIMER_POLL_S = 0.01
"""Real seconds of one look at the sockets when there is no timer to jump to."""


class _Clock:
    def __init__(self, real: bool) -> None:
        self.real = real
        self._jumped = -time.monotonic() if real else 0.0

    def now(self) -> float:
        return self._jumped + (time.monotonic() if self.real else 0.0)

    def jump(self, seconds: float) -> None:
        self._jumped += seconds


class _JumpingSelector(selectors.DefaultSelector):
    """Moves the clock instead of waiting, unless a file descriptor is ready within ``grace`` real seconds."""

    def __init__(self, clock: _Clock, grace: float) -> None:
        super().__init__()
        self._clock = clock
        self._grace = grace
        self.before_wait: Callable[[], None] = lambda: None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(timeout)
        self.before_wait()
        if self._clock.real:
            return super().select(timeout)
        ready = super().select(self._grace if timeout is not None else _NO_TIMER_POLL_S)
        if not ready and timeout is not None:
            self._clock.jump(timeout)
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: _Clock, selector: _JumpingSelector) -> None:
        super().__init__(selector)
        self._lab_clock = clock

    def time(self) -> float:
        return self._lab_clock.now()


def _current_task() -> Any:
    return asyncio.current_task()


def _reason(error: BaseException) -> str:
    return f"CancelledError: {error}" if str(error) else "CancelledError, which has no reason"


def _note_timeouts(recorder: Recorder) -> None:
    """Have the deadlines of asyncio recorded, for the rest of the process.

    They are those of ``timeout`` and ``wait_for``, and of a ``wait`` for all.
    """
    wait: Callable[..., Awaitable[Any]] = asyncio.wait
    wait_for: Callable[..., Awaitable[Any]] = asyncio.wait_for

    class NotedTimeout(asyncio.Timeout):  # type: ignore[misc]  # it is final
        async def __aenter__(self) -> NotedTimeout:
            when = self.when()
            self._noted = None if when is None else recorder.hold(when)
            await super().__aenter__()
            return self

        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> None:
            try:
                await super().__aexit__(kind, error, traceback)
            finally:
                if self._noted is not None:
                    recorder.release(self._noted)

    def noted_timeout(delay: float | None) -> NotedTimeout:
        return NotedTimeout(None if delay is None else recorder.now() + delay)

    async def noted_by(waiting: Awaitable[Any], timeout: float | None) -> Any:
        if timeout is None:
            return await waiting
        noted = recorder.hold(recorder.now() + timeout)
        try:
            return await waiting
        finally:
            recorder.release(noted)

    async def noted_wait_for(awaitable: Awaitable[Any], timeout: float | None) -> Any:
        return await noted_by(wait_for(awaitable, timeout), timeout)

    async def noted_wait(
        tasks: Iterable[Any], *, timeout: float | None = None, return_when: str = asyncio.ALL_COMPLETED
    ) -> Any:
        # The time within which the first is to end, as of a hedge, is no deadline.
        is_deadline = return_when == asyncio.ALL_COMPLETED
        return await noted_by(wait(tasks, timeout=timeout, return_when=return_when), timeout if is_deadline else None)

    asyncio.timeout = noted_timeout
    asyncio.wait = noted_wait  # type: ignore[assignment]
    asyncio.wait_for = noted_wait_for  # type: ignore[assignment]


def run_on_asyncio(
    main: Callable[[], Awaitable[None]],
    file: str,
    column: str,
    *,
    horizon: float,
    real_time: bool,
    grace: float,
    ends: bool,
) -> Run:
    """Run ``main`` and then the event loop until the horizon, as a server's loop runs on. Return the record.

    What still runs then is left as it is: the process is to be ended. With ``ends``, the event loop ends with ``main``
    instead, as in ``asyncio.run``, which cancels what still runs.
    """
    clock = _Clock(real_time)
    selector = _JumpingSelector(clock, grace)
    loop = _Loop(clock, selector)
    recorder = Recorder(file, clock.now, asyncio.CancelledError, _reason, _current_task, lambda: float("inf"))
    selector.before_wait = lambda: recorder.sample(lambda task: task.get_coro())
    install(recorder)

    _note_timeouts(recorder)

    def log(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        recorder.note(f"asyncio logs: {context['message']}" + (f": {in_words(error)}" if error else ""))

    async def program() -> None:
        try:
            await main()
        except Exception as error:  # noqa: BLE001 - what ends the program is part of the record
            recorder.note(f"the program ends with {in_words(error)}")

    loop.set_exception_handler(log)
    if ends:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(program())
        return recorder.run(column, horizon)
    asyncio.set_event_loop(loop)
    running = loop.create_task(program())
    loop.run_until_complete(asyncio.sleep(horizon))
    run = recorder.run(column, horizon)
    del running
    return run
