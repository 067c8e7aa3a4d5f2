"""The signals of the master and their meanings. The signal handlers only enqueue; a task acts on them in order."""

from __future__ import annotations

import signal
from typing import Protocol

import trio

HANDLED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)


class SignalTarget(Protocol):
    """The part of the master that signals need."""

    @property
    def stopping(self) -> bool:
        """Whether the master is stopping."""

    def stop(self, reason: str, *, quick: bool = False) -> None:
        """Stop gracefully, or with ``quick`` within ``QUICK_S`` (``options.py``). ``reason`` is for the log."""

    def reload(self) -> int:
        """Request the replacement of every worker; return the number of the reload."""

    def scale(self, count: int) -> None:
        """Set the number of workers; a ``count`` out of range means the nearest number in it."""

    @property
    def size(self) -> int:
        """The number of workers that was requested."""

    def reopen_logs(self) -> None:
        """Reopen the log files of all processes."""

    def reap(self) -> None:
        """Reap ended children that are not workers."""


async def handle_signals(
    master: SignalTarget, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Act on the signals of ``HANDLED`` until cancelled; ``task_status`` is set when the handlers are installed."""
    with trio.open_signal_receiver(*HANDLED) as signals:
        task_status.started()
        async for number in signals:
            dispatch_signal(master, signal.Signals(number))


def dispatch_signal(master: SignalTarget, number: signal.Signals) -> None:
    """Carry out one signal.

    TERM: stop. INT: stop; quick stop if the master is stopping. QUIT: quick stop. HUP: reload. TTIN, TTOU: one worker
    more, one less. USR1: reopen the logs. CHLD: reap. USR2 has no meaning.
    """
    match number:
        case signal.SIGTERM:
            master.stop("SIGTERM")
        case signal.SIGINT:
            master.stop("SIGINT", quick=master.stopping)
        case signal.SIGQUIT:
            master.stop("SIGQUIT", quick=True)
        case signal.SIGHUP:
            master.reload()
        case signal.SIGTTIN:
            master.scale(master.size + 1)
        case signal.SIGTTOU:
            master.scale(master.size - 1)
        case signal.SIGUSR1:
            master.reopen_logs()
        case signal.SIGCHLD:
            master.reap()
        # SIGUSR2 is handled only because its default action would end the process.
