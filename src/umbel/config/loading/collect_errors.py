"""Reading two files whose mistakes are to be told together.

Used where umbel.toml and hypercorn.toml are read. It knows neither of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...core.errors import ConfigError

FirstT = TypeVar("FirstT")
SecondT = TypeVar("SecondT")


def both(first: Callable[[], FirstT], second: Callable[[], SecondT]) -> tuple[FirstT, SecondT]:
    """What both make. Where both find mistakes in the operator's files, all are told at once.

    Raises:
        ConfigError: the problems of either or both.
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
