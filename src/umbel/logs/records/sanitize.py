"""Conversion of arbitrary values to values of JSON, bounded in size and without secrets.

No value makes a function here raise, whatever its methods do.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from itertools import islice
from typing import Any
from uuid import UUID

import msgspec

from ...core.diagnostics.exception_fields import printable
from ...core.diagnostics.redact import REDACTED, TEXT_CHARS_MAX, Redactor, cut

DEPTH_MAX = 8
"""The depth from which on a list, mapping or object is replaced by the name of its type."""
ITEMS_MAX = 1000
"""The bound on the items of a list or mapping; their number is recorded in place of further ones."""
NAME_CHARS_MAX = 1024
"""The bound on the length of a key."""
VALUES_MAX = 4096
"""The bound on all values of a record, including lists and mappings; ``…`` replaces each further one."""

_SCALARS = (datetime.date, datetime.time, datetime.timedelta, Decimal, UUID, Enum)
_INT_MAX = 2**1024
_MORE = "…"


class Budget:
    """The texts and values that may still be converted for one record.

    It bounds the time for which a record blocks the event loop.
    """

    __slots__ = ("chars", "values")

    def __init__(self) -> None:
        self.chars = TEXT_CHARS_MAX
        """The remaining characters of all texts."""
        self.values = VALUES_MAX
        """The remaining values."""


def sanitize(value: object, redactor: Redactor, depth: int = 0, budget: Budget | None = None) -> Any:
    """Convert a value to None, bool, int, float, str, list or dict, with secrets redacted.

    NaN and infinities become None. An object of another type becomes its ``repr``.

    Args:
        value: any value.
        redactor: hides the secrets.
        depth: how deep the value is nested in its record.
        budget: the remaining budget of the record, which is reduced; None: a whole one.
    """
    budget = budget or Budget()
    budget.values -= 1
    if budget.values < 0:
        return _MORE
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, redactor, budget)
    if isinstance(value, int):
        return int(value) if -_INT_MAX < value < _INT_MAX else _text(printable(value), redactor, budget)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray | memoryview):
        result = bytes(value[: budget.chars + 1]).decode("utf-8", "backslashreplace")
        return _text(result, redactor, budget, max(len(result), len(value)))
    try:
        return _deep(value, redactor, depth, budget)
    except Exception:  # noqa: BLE001 - a foreign __iter__ or __repr__ may raise anything; recording must not
        return f"<{type(value).__name__}>"


def sanitize_fields(
    fields: Mapping[Any, object], redactor: Redactor, depth: int = 0, budget: Budget | None = None
) -> dict[str, Any]:
    """Convert a mapping to a dict with texts as keys; values of secret names are redacted.

    The arguments are those of ``sanitize``. If items are left out, the key ``…`` has their number.
    """
    budget = budget or Budget()
    result: dict[str, Any] = {}
    shown = 0
    for key, value in islice(fields.items(), ITEMS_MAX):
        if budget.values <= 0:
            break
        shown += 1
        name = _name(key)
        if redactor.is_secret(name):
            budget.values -= 1
            result[name] = REDACTED
        else:
            result[name] = sanitize(value, redactor, depth + 1, budget)
    if len(fields) > shown:
        result[_MORE] = f"{len(fields) - shown} more"
    return result


def _text(value: str, redactor: Redactor, budget: Budget, length: int | None = None) -> str:
    """Redact a text and cut it to the budget; a text that is cut ends with the number of omitted characters."""
    shown = cut(value, budget.chars)
    if shown is value:
        budget.chars -= len(value)
        return redactor.text(printable(value))
    kept, budget.chars = budget.chars, 0
    return f"{redactor.text(printable(shown))}{_MORE} {(length or len(value)) - kept} more"


def _deep(value: object, redactor: Redactor, depth: int, budget: Budget) -> Any:
    if depth >= DEPTH_MAX:
        return f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return sanitize_fields(value, redactor, depth, budget)
    if isinstance(value, msgspec.Struct):
        return sanitize_fields(msgspec.to_builtins(value, enc_hook=repr), redactor, depth, budget)
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, redactor, depth, budget)
    if isinstance(value, _SCALARS):
        return sanitize(msgspec.to_builtins(value), redactor, depth + 1, budget)  # As the encoder writes it elsewhere.
    return _text(printable(repr(value)), redactor, budget)


_TOKEN = re.compile(r"[\w.-]+")


def _items(value: Any, redactor: Redactor, depth: int, budget: Budget) -> list[Any]:
    # A pair of texts may be a header field, whose name says whether its value is secret. A text with blanks is no name.
    if len(value) == 2 and isinstance(value, list | tuple) and isinstance(value[0], str | bytes):
        name = _name(value[0])
        if _TOKEN.fullmatch(name) is not None and redactor.is_secret(name):
            return [name, REDACTED]
    items: Iterable[object] = islice(value, ITEMS_MAX)
    result = [sanitize(item, redactor, depth + 1, budget) for item in items]
    if len(value) > ITEMS_MAX:
        result.append(f"… {len(value) - ITEMS_MAX} more")
    return result


def _name(key: object) -> str:
    """Convert a key to a text of at most ``NAME_CHARS_MAX`` characters."""
    if isinstance(key, bytes):
        key = key[:NAME_CHARS_MAX].decode("utf-8", "backslashreplace")
    return printable(key[:NAME_CHARS_MAX] if isinstance(key, str) else key)[:NAME_CHARS_MAX]
