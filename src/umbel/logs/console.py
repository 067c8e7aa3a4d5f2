"""Redaction of the console: handlers of ``logging`` for stdout and stderr write no secrets, and no crash twice.

Frameworks such as Quart print crashes with a handler of their own, in addition to any record.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..core.diagnostics.crash_console import shown_crashes
from ..core.diagnostics.redact import Redactor

SHOWN_ATTRIBUTE = "_umbel_shows"
"""The attribute of a LogRecord that holds whether the console shows the record."""


class _RedactingFormatter(logging.Formatter):
    """A formatter that redacts the text of the formatter that it wraps."""

    def __init__(self, formatter: logging.Formatter, redactor: Redactor) -> None:
        super().__init__()
        self._formatter = formatter
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Format the record without secrets."""
        return self._redactor.text(self._formatter.format(record))


def _is_to_be_shown(record: logging.LogRecord) -> bool:
    """The filter of console handlers: True, except for crashes that were shown already or exceed the rate limit."""
    console = shown_crashes()
    error = record.exc_info[1] if record.exc_info else None
    if console is None or error is None or record.levelno < logging.ERROR:
        return True
    # A record passes several handlers, and asking counts the crash: so the first decision holds for all of them.
    decided = getattr(record, SHOWN_ATTRIBUTE, None)
    if decided is None:
        decided = console.admits(error)
        setattr(record, SHOWN_ATTRIBUTE, decided)
    return bool(decided)


@contextmanager
def redacted_console(redactor: Redactor) -> Iterator[None]:
    """Redact the output of all present handlers for stdout and stderr until the block ends.

    Within ``crashes_on_stderr`` these handlers also leave out crashes that were shown already.
    """
    former = {handler: handler.formatter for handler in _console_handlers()}
    for handler, formatter in former.items():
        handler.setFormatter(_RedactingFormatter(formatter or logging.Formatter(), redactor))
        handler.addFilter(_is_to_be_shown)
    try:
        yield
    finally:
        for handler, formatter in former.items():
            handler.removeFilter(_is_to_be_shown)
            if isinstance(handler.formatter, _RedactingFormatter):  # A formatter set within the block stays.
                handler.setFormatter(formatter)


def _console_handlers() -> Iterator[logging.Handler]:
    """Yield all handlers for stdout and stderr, also those without a logger, such as those of a QueueListener."""
    console = [sys.stdout, sys.stderr]
    references: Any = vars(logging).get("_handlerList", ())
    found = [reference() for reference in references]
    if logging.lastResort is not None and logging.lastResort not in found:
        found.append(logging.lastResort)
    for handler in found:
        if isinstance(handler, logging.StreamHandler):
            stream = handler.stream  # A framework may have wrapped stdout or stderr.
            if stream in console or getattr(stream, "name", "") in ("<stdout>", "<stderr>"):
                yield handler
