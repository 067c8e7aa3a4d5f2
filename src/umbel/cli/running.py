"""Run of a command that serves: ``trio.run``, with the causes of a failed start as one sentence each.

Imports trio and Hypercorn, so only commands that serve import it.
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
    """Run ``main``, which serves ``app``, under trio; a failure that an operator can repair becomes one sentence.

    Raises:
        ConfigError: an address that cannot be listened on, or what kept ``app`` from starting lies in its
            configuration; exit status 78, like every mistake in one.
        ClickException: an application that cannot start, or not in time; exit status 1.
        BaseException: any other as it was raised, out of exception groups that hold it alone.
    """
    try:
        with no_deadly_signals():
            return trio.run(main)
    except BaseException as error:
        cause = unwrapped(error)
        if isinstance(cause, OSError):
            raise ConfigError([ConfigProblem("", None, "bind", cause.strerror or str(cause))]) from error
        if isinstance(cause, LifespanFailureError):
            if (config_error := config_error_of(app)) is not None:
                raise config_error from error
            raise click.ClickException(Redactor().text(str(cause))) from error
        if isinstance(cause, LifespanTooSlowError):
            raise click.ClickException(str(cause)) from error
        if cause is error:
            raise
        raise cause from error


def give_up(error: Exception) -> NoReturn:
    """Exit with status 1 for a defect; its traceback is written to stderr without secrets, once."""
    if not mark_shown(error):
        sys.stderr.write(safe_traceback(error))
    raise SystemExit(1) from None
