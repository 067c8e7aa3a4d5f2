"""The printer of records: as JSON lines, or for people as time, level, event, and the other fields as ``name=value``.

In the form for people, control characters are replaced, so that no record can send a control sequence to a terminal.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
from collections.abc import Iterable
from typing import Any

import click
import msgspec

from .log_files import LogLine

_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red", "critical": "bright_red"}
# Fields that are shown at the front of a line, or that tell people little.
_LEFT_OUT = frozenset(
    {
        *("ts", "level", "severity", "event", "msg", "seq", "task", "trace_id", "worker"),
        *("service.name", "host.name", "process.pid", "client.address", "url.scheme", "url.path"),
        *("http.request.method", "http.response.status_code", "duration_ms", "exception.stacktrace"),
    }
)


_PIECE_BYTES = 64 * 1024
_NO_RECORD_CHARS = 200


class Printer:
    """The printer of lines on stdout.

    Args:
        as_json: whether lines are printed byte for byte as in the file, except that those in the combined format become
            JSON; lines that are not records then go to stderr, so that stdout holds only JSON.
        coloured: whether the form for people is coloured.
    """

    def __init__(self, *, as_json: bool, coloured: bool) -> None:
        self._as_json = as_json
        self._coloured = coloured

    def print(self, lines: Iterable[LogLine]) -> int:
        """Print the lines, and return how many there were, with those that are not records.

        All lines are written when the call returns.

        Raises:
            BrokenPipeError: the reader of stdout has closed it.
        """
        piece: list[bytes] = []
        count = size = 0
        for line in lines:
            count += 1
            if self._as_json and not line.record:
                click.echo(f"not a record: {printable(line.text[:_NO_RECORD_CHARS])}", err=True)
                continue
            if not self._as_json:
                data = self._for_person(line)
            else:
                data = msgspec.json.encode(line.record) if line.combined else line.data
            piece.append(data + b"\n")
            size += len(data)
            if size >= _PIECE_BYTES:
                click.echo(b"".join(piece), nl=False)
                piece, size = [], 0
        if piece:
            click.echo(b"".join(piece), nl=False)
        return count

    def _for_person(self, line: LogLine) -> bytes:
        return shown(line, coloured=self._coloured).encode(sys.stdout.encoding, "backslashreplace")


def wait_while_read(seconds: float) -> None:
    """Wait for ``seconds``.

    Raises:
        BrokenPipeError: the reader of stdout has closed it.
    """
    watch = select.poll()
    watch.register(sys.stdout.fileno(), 0)  # No event: poll() reports errors and hang-ups in any case.
    if watch.poll(seconds * 1000):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def shown(line: LogLine, *, coloured: bool) -> str:
    """Return a line in the form for people, coloured by level and status if ``coloured``.

    A line that is not a record is returned as its text. A traceback follows in lines of its own.
    """
    record = line.record
    if not record:
        return printable(line.text)
    level = str(record.get("level", ""))
    parts = [
        _styled(printable(str(record.get("ts", "")))[11:23], coloured, dim=True),
        _styled(printable(f"{level:<8}") if level else "", coloured, fg=_COLOURS.get(level)),
        *_headline(record, coloured),
    ]
    if record.get("msg"):
        parts.append(printable(str(record["msg"])))
    for name, value in record.items():
        if name not in _LEFT_OUT:
            parts.append(f"{_styled(printable(name) + '=', coloured, dim=True)}{_value(value)}")
    text = " ".join(part for part in parts if part)
    stack = record.get("exception.stacktrace")
    if isinstance(stack, str):
        text += "".join(f"\n    {printable(row)}" for row in stack.splitlines())
    return text


def printable(text: str) -> str:
    """Return the text with each control character replaced by its code."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _headline(record: dict[str, Any], coloured: bool) -> list[str]:
    event = printable(str(record.get("event", "")))
    if "http.request.method" not in record:
        status, parts = record.get("http.response.status_code"), [_styled(event, coloured, bold=True)]
    else:
        status = record.get("http.response.status_code")
        parts = [printable(str(record["http.request.method"])), printable(str(record.get("url.path", "")))]
    if isinstance(status, int):
        colour = "red" if status >= 500 or record.get("level") == "error" else "yellow" if status >= 400 else "green"
        parts.append(_styled(str(status), coloured, fg=colour))
    duration = record.get("duration_ms")
    if isinstance(duration, int | float):
        parts.append(f"{duration:.4g}ms")
    return parts


def _value(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value:
        return printable(value)
    return printable(json.dumps(value, ensure_ascii=False))


def _styled(text: str, coloured: bool, **style: Any) -> str:
    return click.style(text, **style) if coloured and text else text
