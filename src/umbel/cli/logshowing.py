"""A record as one line for a person: time, level, what happened, and the rest as ``name=value``.

Pure. Nothing in a record can reach the terminal as a control sequence.
"""

from __future__ import annotations

import json
from typing import Any

import click

from .logreading import Line

_COLOURS = {"debug": "bright_black", "info": "green", "warning": "yellow", "error": "red", "critical": "bright_red"}
# What stands at the front, or says nothing to a person who looks at one log.
_LEFT_OUT = frozenset(
    {
        *("ts", "level", "severity", "event", "msg", "seq", "task", "trace_id", "worker"),
        *("service.name", "host.name", "process.pid", "client.address", "url.scheme", "url.path"),
        *("http.request.method", "http.response.status_code", "duration_ms", "exception.stacktrace"),
    }
)


def shown(line: Line, *, as_json: bool, coloured: bool) -> str:
    """The line as it is, or as a person wants it; coloured by level and status."""
    if as_json or not line.record:
        return line.text if as_json else printable(line.text)
    record = line.record
    level = str(record.get("level", ""))
    parts = [
        _styled(printable(str(record.get("ts", "")))[11:23], coloured, dim=True),
        _styled(printable(f"{level:<8}"), coloured, fg=_COLOURS.get(level)),
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
    """The text without what a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _headline(record: dict[str, Any], coloured: bool) -> list[str]:
    event = printable(str(record.get("event", "")))
    if "http.request.method" not in record:
        status, parts = record.get("http.response.status_code"), [_styled(event, coloured, bold=True)]
    else:
        status = record.get("http.response.status_code")
        parts = [printable(str(record["http.request.method"])), printable(str(record.get("url.path", "")))]
    if isinstance(status, int):
        colour = "red" if status >= 500 else "yellow" if status >= 400 else "green"
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
