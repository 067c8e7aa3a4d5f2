"""Types of options that are written as in umbel.toml: ``10s``, ``500MB``.

What they refuse is a usage error that click tells.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import click

from ..config.schema.supervisor import parse_hang_timeout
from ..config.schema.units import parse_delay, parse_duration, parse_size

ValueT = TypeVar("ValueT")


class Written(click.ParamType, Generic[ValueT]):  # type: ignore[type-arg]  # older releases of click have none
    """A value that a function of ``config/schema/units.py`` reads."""

    def __init__(self, name: str, parse: Callable[[object], ValueT]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ValueT:
        """The value in seconds or bytes; a default that is one already stays."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # click hands on what a default already is
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Written("duration", parse_duration)
DELAY = Written("duration", parse_delay)
"""A duration that may be "0s"."""
SIZE = Written("size", parse_size)
HANG_TIMEOUT = Written("duration", parse_hang_timeout)

COUNT = click.IntRange(1, 2**63 - 1)
COUNT_OR_NONE = click.IntRange(0, 2**63 - 1)


class _CountOrAll(click.IntRange):
    """A number of at least 0, or "all", which is None."""

    name = 'integer or "all"'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; None for "all"."""
        return None if value == "all" else super().convert(value, param, ctx)


COUNT_OR_ALL = _CountOrAll(0, 2**63 - 1)
