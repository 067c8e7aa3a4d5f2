"""The console without secrets: what the standard library's logging writes there passes the redactor.

Frameworks print a crash with its traceback by a handler of their own (Quart does), whatever else records it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .crashes import shown_crashes
from .records.redact import Redactor

SHOWS = "_umbel_shows"
"""The attribute of a LogRecord that says whether the console shows it."""


class _Redacting(logging.Formatter):
    """Another formatter's text, without secrets."""

    def __init__(self, formatter: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._formatter = formatter
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return self._redactor.text(self._formatter.format(record))


def _shows(record: logging.LogRecord) -> bool:
    """Whether a handler of the console shows a record: a crash is shown once, whoever does it, and not without end."""
    console = shown_crashes()
    error = record.exc_info[1] if record.exc_info else None
    if console is None or error is None or record.levelno < logging.ERROR:
        return True
    # A record goes to several handlers. The first one that asks decides for all.
    decided = getattr(record, SHOWS, None)
    if decided is None:
        decided = console.admits(error)
        setattr(record, SHOWS, decided)
    return bool(decided)


@contextmanager
def redacted_console(redactor: Redactor) -> Iterator[None]:
    """Until the block ends, every handler that is there now and writes to stdout or stderr writes no secrets.

    Nor does it show a crash that was shown already, where crashes are shown (``crashes.py``).
    """
    former = {handler: handler.formatter for handler in _console_handlers()}
    for handler, formatter in former.items():
        handler.setFormatter(_Redacting(formatter or logging.Formatter(), redactor))
        handler.addFilter(_shows)
    try:
        yield
    finally:
        for handler, formatter in former.items():
            handler.removeFilter(_shows)
            if isinstance(handler.formatter, _Redacting):  # else somebody has put another one there
                handler.setFormatter(formatter)


def _console_handlers() -> Iterator[logging.Handler]:
    """All that there are, also those on no logger: behind a queue a handler is called in another thread."""
    console = [sys.stdout, sys.stderr]
    references: Any = vars(logging).get("_handlerList", ())
    found = [reference() for reference in references]
    if logging.lastResort is not None and logging.lastResort not in found:
        found.append(logging.lastResort)
    for handler in found:
        if isinstance(handler, logging.StreamHandler):
            stream = handler.stream  # A framework may have one of its own that stands for the console.
            if stream in console or getattr(stream, "name", "") in ("<stdout>", "<stderr>"):
                yield handler
