"""Takes apart what an application raised: the crash in it, and the cancel that must go on upwards.

Used wherever an application's call ends. An exception group may hold both, and must lose neither. It logs nothing.
"""

from __future__ import annotations

import math
import signal
import threading
from itertools import islice
from types import TracebackType

import trio

from ..net.exception_groups import leaves

_TOLD_MAX = 5
"""Exceptions of one group that are told."""
_TRACEBACK = BaseException.__dict__["__traceback__"]
"""Python's own attribute, which a class may hide."""


def apart(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The crash in ``error``, and the rest, which must go on upwards (``_ends_more``).

    To be called inside of the scopes that may have cancelled. A crash that a group holds alone stands for the group.
    """
    try:
        crash, rest = split(error)
        while isinstance(crash, BaseExceptionGroup) and len(crash.exceptions) == 1:
            crash = crash.exceptions[0]
        if crash is not None:
            described(crash)
    except BaseException as broken:
        if _ends_more(broken):
            raise
        return _opaque(error, broken), None
    return crash, rest


def split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The same; a group stays a group."""
    if isinstance(error, BaseExceptionGroup):
        try:
            rest, crashes = error.split(_ends_more)
        except Exception:  # noqa: BLE001 - it is too deep for Python's recursion, or its class derives no others
            ending = next(filter(_ends_more, leaves(error)), None)
            return (error, None) if ending is None else (None, ending)
        return crashes, rest
    return (None, error) if _ends_more(error) else (error, None)


class OpaqueError(RuntimeError):
    """Stands for an exception that raises when it is looked at."""


def _opaque(error: BaseException, broken: BaseException) -> OpaqueError:
    opaque = OpaqueError(f"a {type(error).__qualname__} cannot be looked at: {type(broken).__qualname__}")
    opaque.__traceback__ = _TRACEBACK.__get__(error)
    return opaque


class StrayCancelError(RuntimeError):
    """An application raised a Cancelled of a scope that is over. (A Cancelled would be taken by the next scope.)"""


def check_cancel(error: trio.Cancelled) -> None:
    """Pass a cancel of ours.

    Raises:
        StrayCancelError: nothing around this task has been cancelled.
    """
    if not _ends_more(error):
        raise StrayCancelError("a cancel was raised where nothing had been cancelled") from error


def _ends_more(error: BaseException) -> bool:
    """Whether an exception ends more than the request that it came out of.

    An application may raise what it likes: KeyboardInterrupt, GeneratorExit, SystemExit, another library's cancel or
    any BaseException of its own are crashes of one request. Three things are not its own, however they pass it:

    * a cancel of ours: a scope around this task is cancelled. A Cancelled without that is one that it kept and raised;
    * Ctrl-C: the signal's handler raised it, so the handler's frame is the innermost. (Under a handler that is not
      trio's, such as our own servers have, Ctrl-C raises nothing here.);
    * the closing of this very coroutine, by an interpreter that ends: it comes in at the point where the task waits.
    """
    if isinstance(error, trio.Cancelled):
        return not trio.lowlevel.in_trio_run() or trio.current_effective_deadline() == -math.inf
    if isinstance(error, KeyboardInterrupt):
        main = threading.current_thread() is threading.main_thread()
        unknown = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return unknown or _raised_in(error, "trio._core._ki")
    return isinstance(error, GeneratorExit) and _raised_in(error, "trio._core._traps")


def _raised_in(error: BaseException, module: str) -> bool:
    frame = _innermost(error)
    return frame is not None and frame.tb_frame.f_globals.get("__name__") == module


def is_nothing_but(kind: type[Exception], error: BaseException) -> bool:
    """Whether ``error`` is of that kind, or a group of such alone."""
    return all(isinstance(leaf, kind) for leaf in leaves(error))


def described(error: BaseException) -> str:
    """Class, place and text of an exception; of a group, of those that it is about."""
    return "; ".join(
        f"{type(leaf).__name__} {_place(leaf)}: {text_of(leaf)}" for leaf in islice(leaves(error), _TOLD_MAX)
    )


def text_of(error: BaseException) -> str:
    """``str(error)``, or a note that there is none: a foreign ``__str__`` may raise anything."""
    try:
        return str(error)
    except BaseException as broken:
        if _ends_more(broken):
            raise
        return f"(its text raises {type(broken).__qualname__})"


def _place(error: BaseException) -> str:
    """File and line of the innermost frame."""
    frame = _innermost(error)
    if frame is None:
        return "(nowhere)"
    return f"at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def _innermost(error: BaseException) -> TracebackType | None:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame
