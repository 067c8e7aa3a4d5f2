"""``trio.run`` for commands that serve: a failed start becomes one sentence with the exit status of its cause."""

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
from ..server.process.listen import BindError
from ..server.process.process_signals import no_deadly_signals
from ..supervisor.worker.app_loader import config_error_of

ResultT = TypeVar("ResultT")


def run(main: Callable[[], Awaitable[ResultT]], app: object = None) -> ResultT:
    """Run ``main``, which serves ``app``, under trio, and return its result.

    Raises:
        ConfigError: a configuration error kept ``app`` from starting, or an address cannot be bound (exit status 78).
        ClickException: the lifespan of ``app`` has failed, or took too long (exit status 1).
        BaseException: any other exception; one that is alone in exception groups is taken out of them. This includes
            other errors of the system: only a traceback says what they have kept from working.
    """
    try:
        with no_deadly_signals():
            return trio.run(main)
    except BaseException as error:
        cause = unwrapped(error)
        if isinstance(cause, BindError):
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
    """Exit with status 1 for a defect. Its traceback is written to stderr, without secrets, unless it was shown."""
    if not mark_shown(error):
        sys.stderr.write(safe_traceback(error))
    raise SystemExit(1) from None
