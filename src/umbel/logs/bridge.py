"""A bridge from the standard library's ``logging`` and ``warnings`` to a log, for the records of other libraries."""

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
"""The loggers whose records go into a server's stream ``app``: the root, and the one that does not pass on to it."""

_RECORDED_BY = "_umbel_log"
"""The attribute of a LogRecord that holds the log that has recorded it."""
# What every LogRecord has; any other attribute came as ``extra``.
_STANDARD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    _RECORDED_BY,
    SHOWN_ATTRIBUTE,
}


class BridgeHandler(logging.Handler):
    """A ``logging.Handler`` that records each ``LogRecord`` in a log. It never waits, never raises and takes no lock.

    The name of the logger and the place in the code become fields, and so do ``extra`` and ``exc_info``, with every
    leaf of a group. Of an exception that has been recorded before, only type and text are recorded; without ``repeats``
    the record is left out. A record that comes through several loggers is recorded once.
    """

    def __init__(self, log: Log, level: int | str = logging.NOTSET, *, repeats: bool = True) -> None:
        super().__init__(level)
        self._log = log
        self._repeats = repeats

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit, without the lock of ``logging.Handler``, for which threads would wait."""
        kept = self.filter(record)
        if isinstance(kept, logging.LogRecord):  # a filter may put another in its place since Python 3.12
            record = kept
        if kept:
            self.emit(record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Record a ``LogRecord``."""
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
    """Record in ``log`` what ``loggers`` (none: the root) and the loggers below them emit, until the block ends.

    Warnings of the module ``warnings`` come as logger ``py.warnings``. Without ``level`` the loggers' own levels count,
    WARNING by default; with ``level`` higher ones are lowered to it, and restored at the end. ``repeats`` as in
    ``BridgeHandler``.
    """
    handler = BridgeHandler(log, logging.NOTSET if level is None else level, repeats=repeats)
    sources = [logging.getLogger(name) for name in loggers or ("",)]
    before = [source.level for source in sources]
    for source in sources:
        source.addHandler(handler)
        if level is not None and source.getEffectiveLevel() > handler.level:
            source.setLevel(handler.level)
    shown = warnings.showwarning
    logging.captureWarnings(True)
    captured = warnings.showwarning is not shown  # Else they were captured before, and stay so.
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
    except Exception:  # noqa: BLE001 - arguments that do not fit; the standard handlers print a traceback to stderr
        return f"{printable(record.msg)} {printable(record.args)}"
