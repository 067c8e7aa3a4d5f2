"""The admin side of a gateway that runs without a master: its settings, what it shows, and when it is opened."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ...admin.settings import AdminSettings
from ...config.display.rows import as_answer
from ...core.events import LogMessage
from ...logs import WORKER_VARIABLE, failing_logs, set_app_level
from ...logs.recorder import STREAMS, path_of
from ...observe.lints.log_queues import log_queues
from ...observe.process.process_figures import process_figures
from ...observe.process.process_side import process_admin
from ...observe.process.process_source import PROCESS, as_dict
from .plans import plans_of

if TYPE_CHECKING:
    from ...config.schema.sections import Config
    from ...logs.records.level import LevelName
    from ...observe.figures import ProcessFigures
    from ...observe.kept_requests import KeptRequests
    from ...observe.lints.tasks import ObservedQueue
    from ...observe.traffic.upstreams import Snapshots
    from ...observe.tree.reader import Frames
    from ..application import GatewayApplication


def admin_settings(config: Config) -> AdminSettings:
    """The settings of the admin side.

    If its socket is put in the directory of the logs, and a log has a file there, the directory is created for it.
    """
    writes_files = any(path_of(config.logs, name) is not None for name in STREAMS)
    return AdminSettings.of(config.admin, config.logs.dir, creates=writes_files)


@asynccontextmanager
async def gateway_admin(app: GatewayApplication) -> AsyncGenerator[None, None]:
    """Context manager: serve the admin side of ``app`` while the block runs.

    Do nothing in a worker, whose master has the admin side, and for an application with a recorder of its own, which is
    a test or part of another program.

    Raises:
        ConfigError: a configured address cannot be bound, and ``app.admin_options`` is strict.
    """
    if app.given_recorder is not None or WORKER_VARIABLE in os.environ:
        yield
        return

    def report(event: str, sentence: str) -> None:
        app.recorder.record(LogMessage("warning", event, sentence))

    async with process_admin(GatewayView(app), admin_settings(app.gateway_config), report, app.admin_options):
        yield


class GatewayView:
    """What the admin side shows of a gateway (``ProcessView``)."""

    def __init__(self, app: GatewayApplication) -> None:
        self._app = app

    def state(self) -> str:
        """The state of the application."""
        return str(self._app.state)

    def statistics(self) -> dict[str, Any]:
        """The snapshots of the counters."""
        server = self._app.server
        return {
            "server": {} if server is None else as_dict(server.statistics()),
            "app": as_dict(self._app.statistics()),
        }

    def figures(self) -> ProcessFigures:
        """The figures of the process."""
        return process_figures(PROCESS, self._app, self._app.server)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """As ``/readyz``, with the reasons."""
        serving = self._app.gateway_context.serving
        details = {
            "state": str(serving.condition),
            "draining": serving.draining,
            "degraded": serving.degraded,
            "failing_logs": failing_logs(serving.recorder),
        }
        return serving.ready, details

    def kept_requests(self) -> KeptRequests | None:
        """The kept requests; None before startup."""
        return self._app.kept_requests()

    def frames(self) -> Frames:
        """Those of the gateway."""
        return self._app.task_frames

    def upstreams(self) -> Snapshots:
        """The snapshots of the upstreams."""
        return self._app.upstream_snapshots()

    def queues(self) -> list[ObservedQueue]:
        """The queues of the logs."""
        return log_queues(self._app.recorder)

    def plan(self, route: str) -> dict[str, Any] | None:
        """The plans of the configured routes with this path."""
        return plans_of(self._app.gateway_config, route)

    def configuration(self) -> dict[str, Any]:
        """The configuration without secrets."""
        return as_answer(self._app.gateway_config)

    def set_log_level(self, level: LevelName) -> bool:
        """Set the level of the log ``app``; return False if there is none."""
        return set_app_level(self._app.recorder, level)

    async def reopen(self) -> None:
        """Reopen the log files."""
        recorder: Any = self._app.recorder
        recorder.reopen()
        await recorder.flush()
