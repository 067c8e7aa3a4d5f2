"""A bridge from the standard library's ``logging`` and ``warnings`` to a log."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.diagnostics.crash_console import show_crash
from ..core.diagnostics.exception_fields import exception_fields, mark_recorded, printable
from .console import SHOWN_ATTRIBUTE
from .log import Log
from .records.level import from_stdlib

LOGGERS = ("", "hypercorn.error")
"""The loggers that a server bridges to the stream ``app``: the root, and Hypercorn's, which does not propagate to it.
"""

_RECORDED_BY = "_umbel_log"
"""The attribute of a LogRecord that holds the log that has recorded it."""
# The attributes of every LogRecord; any other one was given as ``extra``.
_STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    _RECORDED_BY,
    SHOWN_ATTRIBUTE,
}
_WARNINGS = "py.warnings"
"""The logger of captured warnings; its records also go to the root logger."""


class BridgeHandler(logging.Handler):
    """A ``logging.Handler`` that records each ``LogRecord`` in a log. Its own code never waits and never raises.

    The fields of the record are the logger's name, the place in the code, ``extra``, and the exception with the leaves
    of a group. A ``LogRecord`` that passes several loggers is recorded once. An exception from ERROR on is also shown
    on the crash console, if that is active.

    Args:
        log: the log.
        level: the lowest level of ``logging`` that is recorded.
        repeats: whether an exception that was recorded before gets another record, without traceback; if False, it
            gets none.
    """

    def __init__(self, log: Log, level: int | str = logging.NOTSET, *, repeats: bool = True) -> None:
        super().__init__(level)
        self._log = log
        self._repeats = repeats

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit; return whether the filters let the record pass.

        The lock of ``logging.Handler`` is not taken, because threads would wait for it.
        """
        kept = self.filter(record)
        if isinstance(kept, logging.LogRecord):  # Since Python 3.12 a filter may replace the record.
            record = kept
        if kept:
            self.emit(record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Record a ``LogRecord``, without the handler's level and filters."""
        level = from_stdlib(record.levelno)
        if getattr(record, _RECORDED_BY, None) is self._log:
            return
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and record.levelno >= logging.ERROR:
            show_crash(record.name, _message(record), error, self._log.redactor, self._log.path)
        if not self._log.wants(level):
            return
        setattr(record, _RECORDED_BY, self._log)
        fields: dict[str, object] = {
            "msg": _message(record),
            "logger": record.name,
            "code.file.path": record.pathname,
            "code.line.number": record.lineno,
            "code.function.name": record.funcName,
            "thread.name": record.threadName,
        }
        if error is not None:
            recorded = mark_recorded(error)
            if recorded and not self._repeats:
                return
            fields.update(exception_fields(error, stack=not recorded))
        if extra := record.__dict__.keys() - _STANDARD_ATTRIBUTES:
            for name, value in record.__dict__.items():
                if name in extra:
                    fields[name if name not in fields else f"extra.{name}"] = value
        if record.stack_info:
            fields["code.stacktrace"] = record.stack_info
        self._log.record(level, "logging", fields)


@contextmanager
def bridge(log: Log, *loggers: str, level: int | str | None = None, repeats: bool = True) -> Iterator[BridgeHandler]:
    """Context manager: record in ``log`` what ``loggers`` and their descendants emit; gives the handler.

    Warnings of the module ``warnings`` are recorded too, as records of the logger ``py.warnings``, whatever ``loggers``
    names.

    Args:
        log: the log.
        loggers: the names of the loggers; without any, the root logger.
        level: the lowest level that is recorded. A logger with a higher level gets this one until the block ends.
            None: the loggers' own levels decide (the root logger's is WARNING by default).
        repeats: as for ``BridgeHandler``.
    """
    handler = BridgeHandler(log, logging.NOTSET if level is None else level, repeats=repeats)
    names = dict.fromkeys((*loggers, _WARNINGS) if loggers and "" not in loggers else loggers or ("",))
    sources = [logging.getLogger(name) for name in names]
    before = [source.level for source in sources]
    for source in sources:
        source.addHandler(handler)
        if level is not None and source.getEffectiveLevel() > handler.level:
            source.setLevel(handler.level)
    shown = warnings.showwarning
    logging.captureWarnings(True)
    captured = warnings.showwarning is not shown  # False if the program captures them itself.
    try:
        yield handler
    finally:
        if captured:
            logging.captureWarnings(False)
        for source, former in zip(sources, before, strict=True):
            source.removeHandler(handler)
            source.setLevel(former)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the message; foreign __str__ may raise anything
        return f"{printable(record.msg)} {printable(record.args)}"
