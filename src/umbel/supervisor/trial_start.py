"""The trial start of an application (``umbel check --app``): it is loaded, started and stopped in a worker process.

The process has no listening socket, and its memory and threads end with it.
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from .control import messages
from .master.console_output import ConsoleOutput
from .master.exit_status import WORKER_DONE, ExitClass
from .master.process import Worker, WorkerSpec
from .master.settings import Settings


class CheckFailure(NamedTuple):
    """The reason why an application cannot be loaded, started or stopped."""

    reason: str
    """One sentence, and the traceback below it if there is one."""
    misconfigured: bool = False
    """Whether the configuration is the cause."""


async def check_app(settings: Settings) -> CheckFailure | None:
    """Load, start and stop the application in a worker process; return why that failed, or None if it succeeded.

    The process must be ready within ``start_timeout``; otherwise it is killed. A cancel kills and reaps it.

    Raises:
        OSError: the process cannot be started.
    """
    application, options = settings.application, settings.options
    start = messages.Start(
        slot=0,
        generation=0,
        app=application.app,
        config=application.config,
        server=dict(settings.server),
        limits=settings.limits,
        heartbeat_every=options.heartbeat_every,
        orphan_grace=options.orphan_grace,
        check_only=True,
    )
    worker = Worker(WorkerSpec(start, f"check of {application.name}"), options, ConsoleOutput())
    end = await worker.run(_nothing)
    if worker.failure is not None:
        reason = f"{worker.failure.reason}\n{worker.failure.traceback}".rstrip()
        return CheckFailure(reason, end.kind is ExitClass.CONFIG)
    if end.status != WORKER_DONE:
        return CheckFailure(f"the process ended after {trio.current_time() - worker.spawned_at:.1f} s: {end}")
    return None


def _nothing(message: messages.WorkerMessage) -> None:
    """Ignore a message; ``Worker`` keeps the failure."""
