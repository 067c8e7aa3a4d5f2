"""Signal handling of a process that serves without a master.

| signal | effect |
|---|---|
| TERM, INT | graceful stop; a second one of these or QUIT cuts the requests in flight |
| QUIT | quick stop: requests in flight get 503, or are cut off if their response has begun; at most ``QUICK_S`` |
| USR1 | the logs are reopened |
| HUP, USR2 | ignored, with a line on stderr that says what to do instead: only a master can replace workers |
| TTIN, TTOU | ignored without a line: writing it to the terminal could raise the signal again |

Only the main thread can handle signals. In other threads this module does nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

import trio

from ...core.console import say

if TYPE_CHECKING:
    from ..state import ServerState

QUICK_S = 2.0
"""Most seconds of a quick stop."""
_STOP = (signal.SIGINT, signal.SIGTERM)
_IGNORED = {
    signal.SIGHUP: "there is no master that could reload; restart the process, or serve with -w",
    signal.SIGUSR2: "it has no meaning here; restart the process for another program or configuration",
}
_HANDLED = (*_STOP, signal.SIGQUIT, signal.SIGUSR1, *_IGNORED)
_SILENT = (signal.SIGTTIN, signal.SIGTTOU)


def in_main_thread() -> bool:
    """Whether this is the main thread, the only one that can handle signals."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def no_deadly_signals() -> Iterator[None]:
    """While the block runs, ignore HUP, USR1, USR2, TTIN and TTOU, whose default would end or stop the process.

    It protects the process also while it starts and stops, before and after ``handle_signals``.
    """
    if not in_main_thread():
        yield
        return
    # A handler and not SIG_IGN, because child processes inherit SIG_IGN. TTIN and TTOU are the exception: with a
    # handler, a write to the terminal would be repeated without end.
    former = {number: signal.signal(number, _ignore) for number in (*_IGNORED, signal.SIGUSR1)}
    former |= {number: signal.signal(number, signal.SIG_IGN) for number in _SILENT}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


async def handle_signals(
    server: ServerState,
    stop: trio.Event,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Handle signals until cancelled. The first stop signal sets ``stop``. A second one cancels ``scope``; then return.

    QUIT as the first one also shortens the times of the shutdown of ``server``.
    """
    with no_deadly_signals(), trio.open_signal_receiver(*_HANDLED) as signals:
        task_status.started()
        async for number in signals:
            received = signal.Signals(number)
            if received in _IGNORED:
                say(f"{received.name} is ignored: {_IGNORED[received]}")
            elif received is signal.SIGUSR1:
                reopen_logs(server)
            elif stop.is_set():
                scope.cancel(reason=f"a second signal, {received.name}")
                return
            else:
                if received is signal.SIGQUIT:
                    _shorten_grace(server, scope)
                stop.set()


def reopen_logs(server: ServerState) -> None:
    """Reopen the log files, if the recorder has any."""
    if (reopen := getattr(server.recorder, "reopen", None)) is not None:
        reopen()


def _shorten_grace(server: ServerState, scope: trio.CancelScope) -> None:
    """Set the times of the shutdown for a quick stop; ``scope`` is cancelled after ``QUICK_S``."""
    limits = server.limits
    server.limits = replace(limits, drain_delay=0.0, cancel_timeout=min(limits.cancel_timeout, QUICK_S))
    server.config.graceful_timeout = 0.0
    scope.deadline = trio.current_time() + QUICK_S
