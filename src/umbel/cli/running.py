"""How a command that serves runs, and how it tells what kept it from running.

Imports trio and Hypercorn, so those commands import it, and the group does not.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import click
import trio
from hypercorn.utils import LifespanFailureError

from ..core.errors import ConfigError, ConfigProblem
from ..logs import Redactor, mark_shown, safe_traceback
from ..net.exception_groups import unwrapped
from ..server.lifespan import LifespanTooSlowError
from ..server.process.process_signals import no_deadly_signals
from ..supervisor.worker.app_loader import config_error_of

ResultT = TypeVar("ResultT")


def run(main: Callable[[], Awaitable[ResultT]], app: object = None) -> ResultT:
    """``trio.run``, with one sentence for what an operator can mend; ``app`` is what ``main`` serves.

    Raises:
        ConfigError: an address that cannot be listened on, or what kept ``app`` from starting lies in its
            configuration; exit status 78, like every mistake in one.
        ClickException: an application that cannot start, or not in time; exit status 1.
        BaseException: anything else as it came, out of the groups that hold it alone; the group tells ``ConfigError``.
    """
    try:
        with no_deadly_signals():
            return trio.run(main)
    except BaseException as error:
        cause = unwrapped(error)
        if isinstance(cause, OSError):
            raise ConfigError([ConfigProblem("", None, "bind", cause.strerror or str(cause))]) from error
        if isinstance(cause, LifespanFailureError):
            if (refusal := config_error_of(app)) is not None:
                raise refusal from error
            raise click.ClickException(Redactor().text(str(cause))) from error
        if isinstance(cause, LifespanTooSlowError):
            raise click.ClickException(str(cause)) from error
        if cause is error:
            raise
        raise cause from error


def give_up(error: Exception) -> NoReturn:
    """End with status 1, for a reason that is no operator's mistake; its traceback is told without secrets, once."""
    if not mark_shown(error):
        sys.stderr.write(safe_traceback(error))
    raise SystemExit(1) from None
