"""The exit statuses of master and worker, and the classification of a worker's end. Pure."""

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
"""The configuration cannot be used, which may become known only when the lifespan starts."""
WORKER_ORPHANED = 70
"""The master has ended."""

MASTER_STOPPED = 0
MASTER_FAILED = 1
"""The master crashed, or there were too many restarts with ``on_intensity = "exit"``."""
MASTER_NEVER_READY = 3
"""No worker ever got ready."""
MASTER_MISCONFIGURED = 78
"""No worker ever got ready, because of the configuration."""


class ExitClass(enum.StrEnum):
    """Why a worker ended."""

    DRAINED = "drained"
    """The master asked the worker to end, or the worker ended by itself with status 0."""
    RECYCLE = "recycle"
    """The worker drained after it was replaced at its own request or by ``umbel ctl drain``."""
    BOOT = "boot failure"
    """The lifespan did not start."""
    LOAD = "load failure"
    """The application cannot be imported."""
    CONFIG = "configuration"
    """The configuration cannot be used."""
    ORPHAN = "orphan"
    """The worker has lost its master."""
    HANG = "hang"
    """The worker sent no message for ``hang_timeout`` and was killed."""
    LATE = "late"
    """The worker was not ready within ``start_timeout`` and was killed."""
    OVERDUE = "overdue"
    """The worker did not end within the time of its drain and was killed."""
    OOM = "oom"
    """The kernel's OOM killer has probably killed the worker."""
    SIGNAL = "signal"
    """Any other signal has ended the worker."""
    CRASH = "crash"
    """The worker ended with any other status, or could not be started."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a worker: its class and its status."""

    kind: ExitClass
    status: int
    """The exit status, or the negative number of the signal that ended the process."""

    def __str__(self) -> str:
        """Return a text such as ``signal (SIGSEGV)`` or ``crash (exit status 1)``."""
        if self.status < 0:
            return f"{self.kind} ({_signal_name(-self.status)})"
        return f"{self.kind} (exit status {self.status})"


def classify(
    status: int, forced: ExitClass | None = None, *, requested: ExitClass | None = None, oom: bool = False
) -> Exit:
    """Classify the end of a worker.

    Args:
        status: the exit status, or the negative number of the signal that ended the process.
        forced: why the master has killed the worker; None if it has not.
        requested: why the master asked the worker to end (``DRAINED`` or ``RECYCLE``); None if it did not.
        oom: whether the OOM killer has killed any process of the machine during the worker's life.
    """
    if forced is not None and status < 0:
        return Exit(forced, status)
    if requested is not None and status in (WORKER_DONE, -signal.SIGTERM):
        return Exit(requested, status)
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
