"""Signal handling of a process that serves without a master.

| signal | parsed |
|---|---|
| TERM, INT | graceful stop; a second one cuts what is in flight |
| QUIT | quick stop: what is in flight gets 503 or, its response begun, is cut; at most ``QUICK_S`` |
| USR1 | the logs are reopened |
| HUP, USR2 | ignored, with a line that says what to do instead: only a master can replace what runs |
| TTIN, TTOU | ignored without a line: writing one could raise the signal again |

Signals belong to the main thread. Elsewhere everything here does nothing.
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
"""What a quick stop takes at most, in seconds."""
_STOP = (signal.SIGINT, signal.SIGTERM)
_IGNORED = {
    signal.SIGHUP: "there is no master that could reload; restart the process, or serve with -w",
    signal.SIGUSR2: "it has no parsed; restart the process for another program or configuration",
}
_HANDLED = (*_STOP, signal.SIGQUIT, signal.SIGUSR1, *_IGNORED)
_SILENT = (signal.SIGTTIN, signal.SIGTTOU)


def in_main_thread() -> bool:
    """Whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def no_deadly_signals() -> Iterator[None]:
    """Until the block ends, none of the signals that do not mean "stop" ends or halts the process.

    For the time before ``handle_signals`` and after it: a process that starts or ends has requests, logs or a pidfile
    too.
    """
    if not in_main_thread():
        yield
        return
    # A handler and not SIG_IGN, which processes that the application starts would inherit; but for those two a
    # handler would have a write to the terminal repeated without end.
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
    """Act on signals until cancelled. ``stop`` is set when the server is to end; ``scope`` is what a cut cancels."""
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
    """Open the logs anew, where the recorder can."""
    if (reopen := getattr(server.recorder, "reopen", None)) is not None:
        reopen()


def _shorten_grace(server: ServerState, scope: trio.CancelScope) -> None:
    limits = server.limits
    server.limits = replace(limits, drain_delay=0.0, cancel_timeout=min(limits.cancel_timeout, QUICK_S))
    server.config.graceful_timeout = 0.0
    scope.deadline = trio.current_time() + QUICK_S
