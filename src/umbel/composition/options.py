"""What a call that is made in code may be given, and what is refused.

Used by ``gather.py``. It says what options there are; what they do is the engine's and the upstream's layers'.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Required, TypedDict

from ..kinds import Kind
from ..model import Json
from .call import ACCEPT


class RetryOptions(TypedDict, total=False):
    """Further attempts if one fails; ``attempts`` counts the first, so 1 is none. Times are seconds."""

    attempts: int
    on: Iterable[Kind | str | int]
    backoff: float
    max_backoff: float


class HedgeOptions(TypedDict, total=False):
    """Another attempt beside one that is slow; a ``max`` of 0 is none."""

    after: Required[float | str]
    """Seconds, or a percentile such as ``"p95"``."""
    max: int


class CallOptions(TypedDict, total=False):
    """What a call may be given beside its upstream and path, named as in ``[routes.calls.NAME]``.

    Its upstream's policies hold for it as configured, but for those of ``retry``, ``hedge`` and ``coalesce`` that it
    sets itself. In a gateway every upstream can do these; a transport of your own needs the layer.
    """

    name: str
    """Default: the upstream's name, with a number behind it where that is taken."""
    values: Mapping[str, Json]
    """Fills the path as a template (``/users/{id}``): each value stays one encoded segment."""
    params: Mapping[str, Json]
    headers: Mapping[str, str]
    json: Json
    form: Mapping[str, Json]
    content: bytes
    optional: bool
    default: Json
    """The value if it fails; a call with a default is optional."""
    timeout: float
    """Seconds."""
    max_body: int
    decode: Literal["json", "text", "none"]
    ok: Collection[int]
    null_on: Collection[int]
    pass_status: Collection[int]
    pass_body: bool
    retry: RetryOptions
    hedge: HedgeOptions
    coalesce: bool


def check_options(options: CallOptions) -> None:
    """Refuse what a type checker would, for those who run none: a misspelt option must not change what a call means.

    Raises:
        TypeError: an option is unknown, or not of its type.
    """
    for key in options:
        if key not in CallOptions.__annotations__:
            near = difflib.get_close_matches(key, CallOptions.__annotations__, n=1)
            raise TypeError(f'a call has no option "{key}"' + (f'; did you mean "{near[0]}"?' if near else ""))
    timeout = options.get("timeout", 1.0)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
        raise TypeError(f"timeout is seconds, a number above zero, and not {timeout!r}")
    if options.get("decode", "json") not in ACCEPT:
        raise TypeError(f"decode is one of {', '.join(ACCEPT)}, and not {options['decode']!r}")
    for name, statuses in (
        ("ok", options.get("ok", ())),
        ("null_on", options.get("null_on", ())),
        ("pass_status", options.get("pass_status", ())),
    ):
        if isinstance(statuses, str) or not isinstance(statuses, Collection):
            raise TypeError(f"{name} is a list of statuses, and not {statuses!r}")
    if "retry" in options:
        _check_table("retry", options["retry"], RetryOptions.__annotations__)
    if "hedge" in options:
        _check_table("hedge", options["hedge"], HedgeOptions.__annotations__)
        if "after" not in options["hedge"]:
            raise TypeError("hedge needs after")
    if not isinstance(options.get("coalesce", False), bool):
        raise TypeError(f"coalesce is True or False, and not {options['coalesce']!r}")


def _check_table(name: str, given: object, keys: Collection[str]) -> None:
    if not isinstance(given, Mapping) or not given.keys() <= set(keys):
        raise TypeError(f"{name} is a table with some of {', '.join(keys)}, and not {given!r}")
    for key, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_list = key == "on" and isinstance(value, Iterable) and not isinstance(value, str)
        if not (is_number or is_list or (key == "after" and isinstance(value, str))):
            raise TypeError(f"{key} of {name} is not {value!r}")
