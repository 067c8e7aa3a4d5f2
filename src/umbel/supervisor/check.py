"""``umbel check --app``: the application is loaded and started once, in a process that is thrown away.

The process is a worker's, with no socket; what an import leaves behind is gone with it.
"""

from __future__ import annotations

from typing import NamedTuple

import trio

from .control import messages
from .master.console_output import ConsoleOutput
from .master.exit_status import WORKER_DONE, ExitClass
from .master.process import Job, Worker
from .master.settings import Settings


class Trouble(NamedTuple):
    """Why an application does not start and stop as it should."""

    reason: str
    misconfigured: bool = False
    """Whether that lies in its configuration."""


async def check_app(settings: Settings) -> Trouble | None:
    """Why the application does not start and stop as it should; None if it does.

    Cancelled, it kills the process.

    Raises:
        OSError: no process can be started.
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
    worker = Worker(Job(start, f"check of {application.name}"), options, ConsoleOutput())
    end = await worker.run(_nothing)
    if worker.failure is not None:
        told = f"{worker.failure.reason}\n{worker.failure.traceback}".rstrip()
        return Trouble(told, end.kind is ExitClass.CONFIG)
    if end.status != WORKER_DONE:
        return Trouble(f"it ended after {trio.current_time() - worker.spawned_at:.1f} s: {end}")
    return None


def _nothing(message: messages.Up) -> None:
    """What the process says besides its failure concerns nobody."""
