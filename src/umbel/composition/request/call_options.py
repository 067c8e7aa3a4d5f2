"""Options of a call made in code: their types, and their checks at run time."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal, Required, TypedDict

from ...core.failure_kinds import Kind
from ...core.model import Json
from ..decode import ACCEPT


class RetryOptions(TypedDict, total=False):
    """Retries of a failed call."""

    attempts: int
    """The most attempts, the first one included: 1 means no retry."""
    on: Iterable[Kind | str | int]
    """The kinds of failures and the statuses after which the call is retried."""
    backoff: float
    """Seconds: the most that the random pause before the first retry takes; twice as much before each further one."""
    max_backoff: float
    """Seconds: the most that any of these pauses takes."""


class HedgeOptions(TypedDict, total=False):
    """Hedges of a slow call: further attempts beside the first. ``max = 0`` means no hedge."""

    after: Required[float | str]
    """Seconds, or a percentile such as ``"p95"``."""
    max: int


class CallOptions(TypedDict, total=False):
    """The options of a call, named as the keys of ``[routes.calls.NAME]``.

    ``retry``, ``hedge`` and ``coalesce`` replace the policies of the upstream. An httpx transport other than
    ``umbel.upstream.Transport`` ignores these three.
    """

    name: str
    """Default: the upstream's name, with a number if another call has that name."""
    values: Mapping[str, Json]
    """Makes the path a template (``/users/{id}``), and gives its values. Each value stays one encoded segment."""
    params: Mapping[str, Json]
    """Query parameters. A list gives one parameter per item. A date, UUID, Decimal or enum gives its JSON text."""
    headers: Mapping[str, Json]
    """Header fields. A field with the value None is not sent."""
    json: Json
    """The body as JSON. A call has at most one of ``json``, ``form`` and ``content``."""
    form: Mapping[str, Json]
    """The body as a form. A list gives one field per item."""
    content: bytes
    """The body as it is; ``headers`` should name its Content-Type."""
    optional: bool
    """Whether the failure of the call leaves the block running."""
    default: Json
    """The value of the call if it fails; a call with a default is optional."""
    timeout: float
    """Seconds from the launch to the end of the call."""
    max_body: int
    """Bytes: the largest response body after decompression."""
    decode: Literal["json", "text", "none"]
    ok: Collection[int]
    null_on: Collection[int]
    pass_status: Collection[int]
    pass_body: bool
    retry: RetryOptions
    hedge: HedgeOptions
    coalesce: bool
    redirects: Literal["fail", "pass", "follow"]


def check_options(options: CallOptions) -> None:
    """Check the options as a type checker would, so that a misspelt option cannot change a call silently.

    Raises:
        TypeError: an option is unknown, its value has a wrong type, or a time or a size is not above zero.
        ValueError: ``pass_status`` holds a status that cannot be passed on.
    """
    for key, value in options.items():
        if key not in _CHECKS:
            near = difflib.get_close_matches(key, _CHECKS, n=1)
            raise TypeError(f'a call has no option "{key}"' + (f'; did you mean "{near[0]}"?' if near else ""))
        check = _CHECKS[key]
        if check is not None:
            check(key, value)


def _check_name(key: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{key} must be a str, not {value!r}")


def _check_named(key: str, value: object) -> None:
    if value is None and key in _MAY_BE_NONE:
        return
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{key} must be a mapping with str keys, not {_shown(value)}")


def _check_content(key: str, value: object) -> None:
    if value is not None and not isinstance(value, bytes):
        raise TypeError(f"{key} must be bytes, not {_shown(value)}")


def _check_size(key: str, value: object) -> None:
    if type(value) is not int or value <= 0:
        raise TypeError(f"{key} must be a number of bytes above zero, not {value!r}")


def _check_truth(key: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{key} must be True or False, not {value!r}")


def _shown(value: object) -> str:
    """Words for a value in a message. They name only its type: the value may be long or confidential."""
    return "None" if value is None else type(value).__name__


def _check_timeout(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise TypeError(f"timeout must be a number of seconds above zero, not {value!r}")


def _check_decode(key: str, value: object) -> None:
    if value not in ACCEPT:
        raise TypeError(f"decode must be one of {', '.join(ACCEPT)}, not {value!r}")


def _check_redirects(key: str, value: object) -> None:
    if value not in ("fail", "pass", "follow"):
        raise TypeError(f"redirects must be fail, pass or follow, not {value!r}")


def _check_statuses(key: str, value: object) -> None:
    if isinstance(value, str) or not isinstance(value, Collection):
        raise TypeError(f"{key} must be a list of statuses, not {value!r}")


def _check_counted(key: str, value: object) -> None:
    _check_statuses(key, value)
    assert isinstance(value, Collection)
    if not all(isinstance(status, int) and not isinstance(status, bool) for status in value):
        raise TypeError(f"{key} must be a list of integers, not {value!r}")


def _check_passed(key: str, value: object) -> None:
    _check_statuses(key, value)
    assert isinstance(value, Collection)
    for status in value:
        # An HTTPStatus is an int as well.
        if not isinstance(status, int) or isinstance(status, bool) or not 300 <= status <= 599 or status == 304:
            raise ValueError(f"{key} takes statuses from 300 to 599 without 304, not {status!r}")


def _check_retry(key: str, value: object) -> None:
    _check_table(key, value, RetryOptions.__annotations__)


def _check_hedge(key: str, value: object) -> None:
    _check_table(key, value, HedgeOptions.__annotations__)
    if isinstance(value, Mapping) and "after" not in value:
        raise TypeError('hedge needs the key "after"')


def _check_table(name: str, given: object, keys: Collection[str]) -> None:
    if not isinstance(given, Mapping) or not given.keys() <= set(keys):
        raise TypeError(f"{name} must be a mapping with keys of {', '.join(keys)}, not {given!r}")
    for key, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_list = key == "on" and isinstance(value, Iterable) and not isinstance(value, str)
        if not (is_number or is_list or (key == "after" and isinstance(value, str))):
            raise TypeError(f"{key} of {name} cannot be {value!r}: its type is wrong")


_MAY_BE_NONE = frozenset({"values", "form"})
_CHECKS: Mapping[str, Callable[[str, object], None] | None] = {
    **dict.fromkeys(CallOptions.__annotations__),
    "name": _check_name,
    "values": _check_named,
    "params": _check_named,
    "headers": _check_named,
    "form": _check_named,
    "content": _check_content,
    "optional": _check_truth,
    "max_body": _check_size,
    "pass_body": _check_truth,
    "timeout": _check_timeout,
    "decode": _check_decode,
    "ok": _check_counted,
    "null_on": _check_counted,
    "pass_status": _check_passed,
    "retry": _check_retry,
    "hedge": _check_hedge,
    "coalesce": _check_truth,
    "redirects": _check_redirects,
}
"""The check of each option; None: the function that uses the option checks it."""
