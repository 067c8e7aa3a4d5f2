"""Collection of the errors of two loads in one error, so that one run reports the mistakes in both files."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ....core.errors import ConfigError

FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")


def collect_errors(first: Callable[[], FirstT], second: Callable[[], SecondT]) -> tuple[FirstT, SecondT]:
    """Call both functions and return both results. The second one is called also if the first one fails.

    Raises:
        ConfigError: one or both functions raised it. It carries the problems of ``first`` before those of ``second``.
            Any other exception is raised as it is.
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
