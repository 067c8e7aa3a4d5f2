"""The fields of a record that describe an exception: type, message, traceback, and the leaves of a group.

All are bounded. No function here raises for what an exception does.
"""

from __future__ import annotations

import traceback
from contextlib import suppress

from ...net.exception_groups import leaves
from .redact import Redactor, cut

STACK_FRAMES_MAX = 50
STACK_CHARS_MAX = 16 * 1024
"""A longer traceback loses its beginning: the place of the failure is at its end."""
LEAVES_MAX = 500
"""How many leaves of an exception group are listed; further ones are counted."""

_LEAF_CHARS_MAX = 160
_FRAME = '\n  File "'
_MARK = "_umbel_recorded"
_SHOWN = "_umbel_shown"


def exception_fields(error: BaseException, *, stack: bool = True) -> dict[str, object]:
    """The fields of ``error``, in OpenTelemetry's names. ``stack`` False leaves the traceback out."""
    fields: dict[str, object] = {
        "exception.type": type_name(error),
        "exception.message": cut(printable(error), STACK_CHARS_MAX),
    }
    if stack:
        fields["exception.stacktrace"] = stacktrace(error)
    if isinstance(error, BaseExceptionGroup):
        found = list(leaves(error))
        fields["leaves"] = [
            f"{type_name(leaf)}: {cut(printable(leaf), _LEAF_CHARS_MAX)}".removesuffix(": ")
            for leaf in found[:LEAVES_MAX]
        ]
        if len(found) > LEAVES_MAX:
            fields["leaves_total"] = len(found)
    return fields


def printable(value: object) -> str:
    """``str(value)``, or its type's name where its ``__str__`` raises; lone surrogates are escaped."""
    try:
        text = str(value)
    except BaseException:  # noqa: BLE001 - a foreign __str__ may raise anything, and a record must not
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def type_name(error: BaseException) -> str:
    """The exception's type with its module: the value of ``exception.type``."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def stacktrace(error: BaseException) -> str:
    """The traceback with its causes, at most ``STACK_CHARS_MAX`` long.

    A longer one loses its beginning, up to a line that begins a frame: a cut within a line could part a secret from
    the name by which it is recognised. Where the message alone is that long, its beginning stays.
    """
    try:
        text = "".join(traceback.format_exception(error, limit=STACK_FRAMES_MAX))
    except Exception:  # noqa: BLE001 - a foreign __str__ or source may raise anything, and a record must not
        text = "".join(traceback.format_tb(error.__traceback__, limit=STACK_FRAMES_MAX))
    if len(text) <= STACK_CHARS_MAX:
        return text
    frame = text.find(_FRAME, len(text) - STACK_CHARS_MAX)
    if frame >= 0:
        return text[frame + 1 :]
    last = text.rfind(_FRAME)
    return cut(text[last + 1 :], STACK_CHARS_MAX)


def safe_traceback(error: BaseException, redactor: Redactor | None = None) -> str:
    """The traceback with its causes as text for a console, without secrets; ends with a line end."""
    return (redactor or Redactor()).text(stacktrace(error)).rstrip("\n") + "\n"


def mark_recorded(error: BaseException) -> bool:
    """Mark this exception, or each leaf of this group, as recorded; says whether all were marked already.

    A server, a framework and a thread's hook may each report the same exception; the mark keeps it from being recorded
    twice.
    """
    return _mark(error, _MARK)


def mark_shown(error: BaseException) -> bool:
    """As ``mark_recorded``, for what was shown on the console."""
    return _mark(error, _SHOWN)


def _mark(error: BaseException, name: str) -> bool:
    marked = True
    for leaf in leaves(error):
        if not getattr(leaf, name, False):
            marked = False
            with suppress(Exception):  # an exception may refuse attributes; then it may be reported twice
                setattr(leaf, name, True)
    return marked
