"""Why a worker ended, from its exit status and what the master knew: a closed list of classes.

Pure.
"""

from __future__ import annotations

import enum
import signal
from dataclasses import dataclass

WORKER_DONE = 0
WORKER_CRASHED = 1
WORKER_BOOT_FAILED = 3
"""The application's lifespan did not start."""
WORKER_LOAD_FAILED = 4
"""The application cannot be imported."""
WORKER_MISCONFIGURED = 78
"""Its configuration cannot be used, which may show only when it starts."""
WORKER_ORPHANED = 70
"""The master is gone."""

MASTER_STOPPED = 0
MASTER_FAILED = 1
"""A crash of the master, or too many restarts where ``on_intensity = "exit"``."""
MASTER_NEVER_READY = 3
MASTER_MISCONFIGURED = 78
"""No worker ever got ready, because of the configuration."""


class ExitClass(enum.StrEnum):
    """The classes."""

    DRAINED = "drained"
    """It was asked to end, or ended by itself with status 0."""
    RECYCLE = "recycle"
    """It was replaced because it had asked for it."""
    BOOT = "boot failure"
    LOAD = "load failure"
    CONFIG = "configuration"
    """What it is to serve is configured in a way that cannot be used."""
    ORPHAN = "orphan"
    HANG = "hang"
    """It gave no sign of life and was ended."""
    LATE = "late"
    """It was not ready within ``start_timeout`` and was ended."""
    OVERDUE = "overdue"
    """It did not end within the time of its drain and was killed."""
    OOM = "oom"
    """The kernel killed it for want of memory."""
    SIGNAL = "signal"
    CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Exit:
    """One worker's end."""

    kind: ExitClass
    status: int
    """As Python tells it: the exit status, or a signal's number below zero."""

    def __str__(self) -> str:
        """Such as ``signal (SIGSEGV)`` or ``crash (exit status 1)``."""
        if self.status < 0:
            return f"{self.kind} ({_signal_name(-self.status)})"
        return f"{self.kind} (exit status {self.status})"


def classify(
    status: int, forced: ExitClass | None = None, *, asked: ExitClass | None = None, oom: bool = False
) -> Exit:
    """The class of an end.

    Args:
        status: what the process ended with.
        forced: why the master ended it by a signal, if it did.
        asked: why the master asked it to end, if it did: ``DRAINED`` or ``RECYCLE``.
        oom: whether the kernel killed some process for want of memory while this one lived.
    """
    if forced is not None and status < 0:
        return Exit(forced, status)
    if asked is not None and status in (WORKER_DONE, -signal.SIGTERM):
        return Exit(asked, status)
    by_status = {
        WORKER_DONE: ExitClass.DRAINED,
        WORKER_BOOT_FAILED: ExitClass.BOOT,
        WORKER_LOAD_FAILED: ExitClass.LOAD,
        WORKER_MISCONFIGURED: ExitClass.CONFIG,
        WORKER_ORPHANED: ExitClass.ORPHAN,
    }
    if status < 0:
        return Exit(ExitClass.OOM if oom and status == -signal.SIGKILL else ExitClass.SIGNAL, status)
    return Exit(by_status.get(status, ExitClass.CRASH), status)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
