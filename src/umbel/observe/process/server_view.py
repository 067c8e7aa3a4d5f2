"""What the admin side shows of an ASGI application that is served without a master."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...logs import failing_logs, set_app_level
from ...server.phase import Phase
from ..lints.log_queues import log_queues
from .process_figures import process_figures
from .process_source import PROCESS, as_dict

if TYPE_CHECKING:
    from ...core.events import Recorder
    from ...logs.records.level import LevelName
    from ...server.state import ServerState
    from ..figures import ProcessFigures
    from ..lints.tasks import ObservedQueue
    from ..traffic.upstreams import Snapshots
    from ..tree.reader import Frames


class ServerView:
    """A ``ProcessView`` of an application and its server.

    Args:
        app: the application.
        recorder: the recorder of the server.
    """

    def __init__(self, app: Any, recorder: Recorder) -> None:
        self.is_started = False
        """Whether the application has started and connections are accepted."""
        self._app = app
        self._recorder = recorder
        self._server: ServerState | None = None

    def watch(self, server: ServerState) -> None:
        """Show the counters of this server from now on."""
        self._server = server

    def state(self) -> str:
        """The state in one word."""
        if self._server is None or not self.is_started:
            return "starting"
        return "serving" if self._server.phase.value is Phase.SERVING else "stopping"

    def statistics(self) -> dict[str, Any]:
        """The snapshot of the server's counters."""
        return {"server": {} if self._server is None else as_dict(self._server.statistics()), "app": {}}

    def figures(self) -> ProcessFigures:
        """The figures of the process."""
        return process_figures(PROCESS, self._app, self._server)

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready while the server serves."""
        state = self.state()
        details = {
            "state": state,
            "draining": state == "stopping",
            "degraded": False,
            "failing_logs": failing_logs(self._recorder),
        }
        return state == "serving", details

    def kept_requests(self) -> None:
        """The application keeps no requests."""

    def frames(self) -> Frames:
        """Those of the application, if it has any."""
        frames: Frames = getattr(self._app, "task_frames", {})
        return frames

    def upstreams(self) -> Snapshots:
        """Those of the application, if it has any."""
        upstreams = getattr(self._app, "upstream_snapshots", None)
        found: Snapshots = {} if upstreams is None else upstreams()
        return found

    def queues(self) -> list[ObservedQueue]:
        """The queues of the logs."""
        return log_queues(self._recorder)

    def plan(self, route: str) -> None:
        """The application has no configured routes."""

    def configuration(self) -> dict[str, Any]:
        """The application has no configuration."""
        return {"rows": [], "left_out": 0}

    def set_log_level(self, level: LevelName) -> bool:
        """Set the level of the log ``app``; return False if there is none."""
        return set_app_level(self._recorder, level)

    async def reopen(self) -> None:
        """Reopen the log files; do nothing without any."""
        recorder: Any = self._recorder
        if hasattr(recorder, "reopen"):
            recorder.reopen()
            await recorder.flush()
