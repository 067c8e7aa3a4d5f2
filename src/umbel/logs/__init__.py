"""Structured logs for trio programs: JSON lines, queued by plain functions and written by one task per file.

Recording never blocks, and every lost record is counted. ``open_log`` opens a log for any trio program;
``open_recorder`` opens the three logs of the gateway. The package imports neither httpx nor Quart nor pydantic.
"""

from ..core.console import own_stderr
from ..core.diagnostics.crash_console import crashes_on_stderr, show_crash, shown_crashes
from ..core.diagnostics.exception_fields import mark_shown, safe_traceback
from ..core.diagnostics.redact import Redactor
from .bridge import LOGGERS, BridgeHandler, bridge
from .console import redacted_console
from .context import bind, bound
from .files.recover import recover
from .log import Log, LogStatistics, NotWrittenError, open_log
from .options import LogOptions
from .recorder import (
    WORKER_VARIABLE,
    FileRecorder,
    RecorderStatistics,
    ensure_writable,
    failing_logs,
    open_recorder,
    recover_all,
    set_app_level,
)

__all__ = [
    "LOGGERS",
    "WORKER_VARIABLE",
    "BridgeHandler",
    "FileRecorder",
    "Log",
    "LogOptions",
    "LogStatistics",
    "NotWrittenError",
    "RecorderStatistics",
    "Redactor",
    "bind",
    "bound",
    "bridge",
    "crashes_on_stderr",
    "ensure_writable",
    "failing_logs",
    "mark_shown",
    "open_log",
    "open_recorder",
    "own_stderr",
    "recover",
    "recover_all",
    "redacted_console",
    "safe_traceback",
    "set_app_level",
    "show_crash",
    "shown_crashes",
]
