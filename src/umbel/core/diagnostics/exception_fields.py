"""Record fields that describe an exception: type, message, traceback, and the leaves of a group.

All fields are bounded in size. They may hold secrets; only ``safe_traceback`` redacts. No function here raises, even if
a method of the exception raises.
"""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import Any

from ...net.exception_groups import leaves
from .redact import Redactor, cut

STACK_FRAMES_MAX = 50
"""Maximum frames of each traceback in a chain of causes. A deeper one keeps its innermost frames, which have the place
of the failure, behind a line with the number of those left out."""
STACK_CHARS_MAX = 16 * 1024
"""Maximum characters of a traceback. A longer one loses its beginning, because its end has the place of the failure."""
LEAVES_MAX = 500
"""Maximum number of listed leaves of an exception group; all are counted."""

_LEAF_CHARS_MAX = 160
_FRAME = '\n  File "'
_MARK = "_umbel_recorded"
_SHOWN = "_umbel_shown"


def exception_fields(error: BaseException, *, stack: bool = True) -> dict[str, object]:
    """The fields ``exception.type`` and ``exception.message``, and ``exception.stacktrace`` if ``stack`` is True.

    For an exception group, also ``leaves``: a text for each of the first ``LEAVES_MAX`` leaves. If there are more,
    ``leaves_total`` is their number.
    """
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
    """``str(value)``, or the name of its type if ``__str__`` raises; lone surrogates are escaped."""
    try:
        text = str(value)
    except BaseException:  # noqa: BLE001 - a foreign __str__ may raise anything, but recording must not raise
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


def type_name(error: BaseException) -> str:
    """The exception's type with its module: the value of ``exception.type``."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def stacktrace(error: BaseException) -> str:
    """The traceback with its causes, at most ``STACK_CHARS_MAX`` characters.

    A longer traceback loses its beginning, up to the beginning of a frame. A cut within a line could separate a secret
    from its name, and the redactor would not recognise the secret. If the message alone is too long, its end is lost.
    """
    try:
        described = traceback.TracebackException.from_exception(error, lookup_lines=False)
        _keep_innermost(described)
        text = "".join(described.format())
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything, but recording must not raise
        text = "".join(traceback.format_tb(error.__traceback__, limit=-STACK_FRAMES_MAX))
    if len(text) <= STACK_CHARS_MAX:
        return text
    frame = text.find(_FRAME, len(text) - STACK_CHARS_MAX)
    if frame >= 0:
        return text[frame + 1 :]
    last = text.rfind(_FRAME)
    return cut(text[last + 1 :], STACK_CHARS_MAX)


class _InnermostFrames(traceback.StackSummary):
    """The innermost frames of a deep traceback; ``left_out`` is the number of the others."""

    left_out = 0

    def format(self, **kwargs: Any) -> list[str]:
        return [f"  [{self.left_out} outer frames are left out]\n", *super().format(**kwargs)]


def _keep_innermost(described: traceback.TracebackException) -> None:
    """Leave out the outer frames of each traceback that has more than ``STACK_FRAMES_MAX``."""
    waiting = [described]
    while waiting:
        each = waiting.pop()
        if (left_out := len(each.stack) - STACK_FRAMES_MAX) > 0:
            # Before any source line is looked up: only those of the kept frames are read.
            each.stack = _InnermostFrames(each.stack[left_out:])
            each.stack.left_out = left_out
        waiting += [inner for inner in (each.__cause__, each.__context__) if inner is not None]
        waiting += each.exceptions or ()


def safe_traceback(error: BaseException, redactor: Redactor | None = None) -> str:
    """The redacted traceback with its causes, for a console; ends with a line end.

    ``redactor=None`` means one that knows only the secret names of ``redact.NAMES``.
    """
    return (redactor or Redactor()).text(stacktrace(error)).rstrip("\n") + "\n"


def mark_recorded(error: BaseException) -> bool:
    """Mark an exception, or each leaf of a group, as recorded. Return whether all were marked before.

    A server, a framework and a thread's exception hook may each report one exception; the mark avoids a second record.
    """
    return _mark(error, _MARK)


def mark_shown(error: BaseException) -> bool:
    """Mark an exception, or each leaf of a group, as shown on the console. Return whether all were marked before."""
    return _mark(error, _SHOWN)


def _mark(error: BaseException, name: str) -> bool:
    marked = True
    for leaf in leaves(error):
        if not getattr(leaf, name, False):
            marked = False
            with suppress(Exception):  # An exception may refuse attributes; it may then be reported twice.
                setattr(leaf, name, True)
    return marked
