"""The console without secrets: what the standard library's logging writes there passes the redactor.

Frameworks print a crash with its traceback by a handler of their own (Quart does), whatever else records it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .redact import Redactor


class _Redacting(logging.Formatter):
    """Another formatter's text, without secrets."""

    def __init__(self, formatter: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._formatter = formatter
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """The record's text."""
        return self._redactor.text(self._formatter.format(record))


@contextmanager
def redacted_console(redactor: Redactor) -> Iterator[None]:
    """Until the block ends, every handler that is there now and writes to stdout or stderr writes no secrets."""
    former = {handler: handler.formatter for handler in _console_handlers()}
    for handler, formatter in former.items():
        handler.setFormatter(_Redacting(formatter or logging.Formatter(), redactor))
    try:
        yield
    finally:
        for handler, formatter in former.items():
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
