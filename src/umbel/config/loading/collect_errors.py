"""Collection of the errors of two loads into one, so that one run reports the mistakes of both files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...core.errors import ConfigError

FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")


def collect_errors(first: Callable[[], FirstT], second: Callable[[], SecondT]) -> tuple[FirstT, SecondT]:
    """Call both functions and return both results; the second is called also where the first fails.

    Raises:
        ConfigError: the problems of either call, or of both, the first's before the second's.
    """
    try:
        made = first()
    except ConfigError as error:
        try:
            second()
        except ConfigError as more:
            raise ConfigError([*error.problems, *more.problems]) from error
        raise
    return made, second()
