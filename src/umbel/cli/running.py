"""How a command that serves runs, and how it tells what kept it from running.

Used by ``serve`` and ``demo``. Imports trio and Hypercorn, so those commands import it, and the group does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click
import trio
from hypercorn.utils import LifespanFailureError

from ..errors import ConfigError, ConfigProblem

if TYPE_CHECKING:
    from ..gateway.app import Umbel

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


def run(main: Callable[[], Awaitable[None]], app: Umbel | None = None) -> None:
    """``trio.run``, with one sentence for what an operator can mend; ``app`` is what ``main`` serves.

    Raises:
        ConfigError: an address that cannot be listened on, or what kept ``app`` from starting lies in its
            configuration; exit status 78, like every mistake in one.
        ClickException: an application that cannot start; exit status 1.
        BaseException: anything else as it came, out of the groups that hold it alone; the group tells ``ConfigError``.
    """
    try:
        trio.run(main)
    except BaseException as error:
        cause = _only(error)
        if isinstance(cause, OSError):
            raise ConfigError([ConfigProblem("", None, "bind", cause.strerror or str(cause))]) from error
        if isinstance(cause, LifespanFailureError):
            if app is not None and app.refusal is not None:
                raise app.refusal from error
            raise click.ClickException(str(cause)) from error
        if cause is error:
            raise
        raise cause from error


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
