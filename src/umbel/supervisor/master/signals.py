"""What each signal means to the master. The handlers only enqueue; this task acts.

Started before the first worker. It knows the meanings and nothing about how they come about.
"""

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


class Signalled(Protocol):
    """What can be asked of a master."""

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""

    def stop(self, reason: str, *, quick: bool = False) -> None:
        """End: gracefully, or at once."""

    def reload(self) -> int:
        """Replace every worker."""

    def scale(self, count: int) -> None:
        """Have so many workers."""

    @property
    def size(self) -> int:
        """How many workers it is to have."""

    def reopen_logs(self) -> None:
        """Have everybody write into the files that stand at the logs' paths now."""

    def reap(self) -> None:
        """Reap what is not ours."""


async def obey_signals(master: Signalled, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Act on signals until cancelled."""
    with trio.open_signal_receiver(*HANDLED) as signals:
        task_status.started()
        async for number in signals:
            act(master, signal.Signals(number))


def act(master: Signalled, number: signal.Signals) -> None:
    """TERM: stop. INT: stop, a second one quickly. QUIT: stop quickly. HUP: reload. TTIN, TTOU: one more, one less."""
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
        # SIGUSR2 has no meaning yet; by its default it would end the process.
