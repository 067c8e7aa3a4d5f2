"""Types of options: values with units as in umbel.toml (``10s``, ``500MB``), and bounded whole numbers.

An invalid value is a usage error of click (exit status 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import click

from ..config.schema.process.supervisor import parse_hang_timeout
from ..config.schema.values.units import parse_delay, parse_duration, parse_size

ValueT = TypeVar("ValueT")


class UnitValue(click.ParamType, Generic[ValueT]):  # type: ignore[type-arg]  # older releases of click have none
    """A value with a unit, parsed by ``parse``: a function of ``config/schema``, such as ``units.parse_size``."""

    def __init__(self, name: str, parse: Callable[[object], ValueT]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ValueT:
        """Return the value in seconds or bytes; a value that is not a text (a default) is returned unchanged."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # a default, already of the final type
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = UnitValue("duration", parse_duration)
DELAY = UnitValue("duration", parse_delay)
"""A duration that may be "0s"."""
SIZE = UnitValue("size", parse_size)
HANG_TIMEOUT = UnitValue("duration", parse_hang_timeout)

_COUNT_MAX = 2**63 - 1


class _Count(click.ParamType):  # type: ignore[type-arg]  # older releases of click have none
    """A whole number from ``lowest`` to ``_COUNT_MAX``. ``click.IntRange`` would print both bounds in ``--help``."""

    name = "integer"

    def __init__(self, lowest: int) -> None:
        self._lowest = lowest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail with a usage error."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        if not self._lowest <= number <= _COUNT_MAX:
            self.fail(f"{number} is not in the range from {self._lowest} to {_COUNT_MAX}.", param, ctx)
        return number


COUNT = _Count(1)
COUNT_OR_NONE = _Count(0)


class _CountOrAll(_Count):
    """A whole number of at least 0, or "all", which becomes None."""

    name = 'integer or "all"'

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; None for "all"."""
        return None if value == "all" else super().convert(value, param, ctx)


COUNT_OR_ALL = _CountOrAll(0)
