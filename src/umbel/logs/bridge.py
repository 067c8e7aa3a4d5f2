"""The standard library's logging, into a log: what hypercorn, httpx and anybody's libraries say, and warnings.

Installed with ``bridge`` by whoever opened the log. It makes records and decides nothing else.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .console import SHOWS
from .crashes import show_crash
from .log import Log
from .records.exception_fields import exception_fields, mark_recorded
from .records.level import from_stdlib
from .records.sanitize import printable

LOGGERS = ("", "hypercorn.error")
"""The loggers whose records go into a server's stream ``app``: the root, and the one that does not pass on to it."""

# What every LogRecord has; anything else came as ``extra``.
_SEEN = "_umbel_log"
_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", _SEEN, SHOWS}


class BridgeHandler(logging.Handler):
    """Hands each ``LogRecord`` to a log: never waits, never raises, and takes no lock of its own.

    ``logger`` and the place in the code are told, ``extra`` becomes fields, ``exc_info`` the exception with every leaf
    of a group. An exception that the log has told already is told by its type and text only; without ``repeats`` a
    record of it is left out. A record that comes through several loggers is told once.
    """

    def __init__(self, log: Log, level: int | str = logging.NOTSET, *, repeats: bool = True) -> None:
        super().__init__(level)
        self._log = log
        self._repeats = repeats

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit. The standard one holds a lock around both, for which threads would wait."""
        kept = self.filter(record)
        if isinstance(kept, logging.LogRecord):  # a filter may put another in its place since Python 3.12
            record = kept
        if kept:
            self.emit(record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Record it."""
        level = from_stdlib(record.levelno)
        if getattr(record, _SEEN, None) is self._log:
            return
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and record.levelno >= logging.ERROR:
            show_crash(record.name, _message(record), error, self._log.redactor, self._log.path)
        if not self._log.wants(level):
            return
        setattr(record, _SEEN, self._log)
        fields: dict[str, object] = {
            "msg": _message(record),
            "logger": record.name,
            "code.file.path": record.pathname,
            "code.line.number": record.lineno,
            "code.function.name": record.funcName,
            "thread.name": record.threadName,
        }
        if error is not None:
            told = mark_recorded(error)
            if told and not self._repeats:
                return
            fields.update(exception_fields(error, stack=not told))
        if extra := record.__dict__.keys() - _USUAL:
            for name, value in record.__dict__.items():
                if name in extra:
                    fields[name if name not in fields else f"extra.{name}"] = value
        if record.stack_info:
            fields["code.stacktrace"] = record.stack_info
        self._log.record(level, "logging", fields)


@contextmanager
def bridge(log: Log, *loggers: str, level: int | str | None = None, repeats: bool = True) -> Iterator[BridgeHandler]:
    """Hand to ``log`` what ``loggers`` (none: the root, so everything) and those below them say, until the block ends.

    Warnings of the module ``warnings`` come as logger ``py.warnings``. Without ``level`` it gets what the loggers let
    through, which is WARNING and above unless somebody has set them; with ``level`` theirs are lowered to that, and put
    back at the end. ``repeats`` as in ``BridgeHandler``.
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
    captured = warnings.showwarning is not shown  # else somebody else had them captured, and keeps them
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
