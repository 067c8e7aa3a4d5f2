"""How a command that serves runs, and how it tells what kept it from running.

Used by ``serve`` and ``demo``. Imports trio and Hypercorn, so those commands import it, and the group does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click
import trio
from hypercorn.utils import LifespanFailureError


def run(main: Callable[[], Awaitable[None]]) -> None:
    """``trio.run``, with one sentence and exit status 1 for what an operator can mend.

    Raises:
        ClickException: an address that cannot be listened on, or an application that cannot start.
        BaseException: anything else as it came, out of the groups that hold it alone; the group tells ``ConfigError``.
    """
    try:
        trio.run(main)
    except BaseException as error:
        cause = _only(error)
        if isinstance(cause, OSError):
            raise click.ClickException(cause.strerror or str(cause)) from error
        if isinstance(cause, LifespanFailureError):
            raise click.ClickException(str(cause)) from error
        if cause is error:
            raise
        raise cause from error


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
