"""Exception groups: their leaves, the crash beside a cancel, the one exception that a group holds alone.

Theory
------
A nursery wraps what its tasks raise in a group, so a group may hold a cancel and a crash at once. Whoever ends an
exception must lose neither: the crash is reported, and the cancel goes on upwards, or else its scope never ends.

Three rules hold for every function here.

- **No recursion over the depth of a group.** Foreign code raises what it likes, and a group may be thousands deep;
  Python's stack is not. ``BaseExceptionGroup.split`` recurses, and calls ``derive`` of the group's class, which may
  raise too. So it stands in one place (``_split``), with a fallback that looks at the leaves alone.
- **An exception that is raised in the place of its group keeps the context that it has.** Raised while the group is
  handled, Python makes the group its context; the group holds it, so the two would be a cycle.
- **No frame here outlives a raise.** The traceback of what is raised holds the frame that raises it. A name in that
  frame that leads back to the exception would be a cycle, so such names are deleted.

What counts as a cancel of ours, and not as a crash, says ``_ends_more``.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import NoReturn, TypeVar

import trio

_Kind = TypeVar("_Kind", bound=BaseException)
_Group = BaseExceptionGroup[BaseException]

_DESCRIBED_MAX = 5
"""Leaves of a group that ``described`` names."""
_TRACEBACK = BaseException.__dict__["__traceback__"]
"""Python's own attribute, which a class may hide."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions within ``error`` that are no groups, in order; ``error`` itself if it is no group."""
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup):
            waiting.extend(reversed(part.exceptions))
        else:
            yield part


def first_leaf(error: BaseException, kind: type[_Kind]) -> _Kind | None:
    """The first leaf of ``error`` that is of ``kind``."""
    return next((leaf for leaf in leaves(error) if isinstance(leaf, kind)), None)


def holds_only(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether ``error`` is of ``kind``, or a group of such alone."""
    return all(isinstance(leaf, kind) for leaf in leaves(error))


def cancel_reason(error: BaseException) -> str:
    """The reason of the first cancel inside of ``error``; empty where there is none, or none was given."""
    cancelled = first_leaf(error, trio.Cancelled)
    return (cancelled.reason if cancelled is not None else None) or ""


def unwrapped(error: BaseException) -> BaseException:
    """What nested groups of one hold: an exception, or a group of several; ``error`` itself if it is no such group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def raise_unwrapped(error: BaseException) -> None:
    """Raise what nested groups of one hold, in the place of ``error``; return if it is no such group.

    To be called where ``error`` is handled, so that callers can catch a single exception by its type.
    """
    inner = unwrapped(error)
    if inner is not error:
        try:
            _raise_as_it_is(inner)
        finally:
            del error, inner


def raise_first_cancelled(error: BaseException) -> None:
    """Raise the first cancel of a group in the place of ``error``; return if it is no group, or holds none.

    To be called where ``error`` is handled, and where whatever else is in it may be lost.
    """
    cancelled = first_leaf(error, trio.Cancelled)
    if cancelled is not None and cancelled is not error:
        try:
            _raise_as_it_is(cancelled)
        finally:
            del error, cancelled


def raise_cancels(error: BaseException) -> None:
    """Raise the cancels of a group in its place, with the failures (``Exception``) beside them as their cause.

    Return if it is no group, or holds no cancel, no failure, or anything else (KeyboardInterrupt). To be called where
    ``error`` is handled.
    """
    if (
        not isinstance(error, BaseExceptionGroup)
        or holds_only(error, trio.Cancelled)
        or not all(isinstance(leaf, trio.Cancelled | Exception) for leaf in leaves(error))
    ):
        return
    cancels, failures = _split(error, lambda part: isinstance(part, trio.Cancelled))
    if cancels is not None:
        try:
            cancels.__cause__ = failures
            _raise_as_it_is(cancels)
        finally:
            del error, cancels, failures


def _raise_as_it_is(error: BaseException) -> NoReturn:
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context


def split_crash(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The crash in ``error``, and the rest, which must go on upwards (``_ends_more``). A group stays a group.

    To be called inside of the scopes that may have cancelled.
    """
    if isinstance(error, BaseExceptionGroup):
        rest, crashes = _split(error, _ends_more)
        return crashes, rest
    return (None, error) if _ends_more(error) else (error, None)


def split_application_crash(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The same for what an application raised. A crash that a group holds alone stands for the group.

    An exception that raises when it is looked at is replaced by an ``OpaqueError``.
    """
    try:
        crash, rest = split_crash(error)
        if crash is not None:
            crash = unwrapped(crash)
            described(crash)
    except BaseException as broken:
        if _ends_more(broken):
            raise
        return _opaque(error, broken), None
    return crash, rest


def _split(group: _Group, condition: Callable[[BaseException], bool]) -> tuple[BaseException | None, _Group | None]:
    """``group.split(condition)``. Where that fails: the first leaf that meets it and None, or None and the group."""
    try:
        return group.split(condition)
    except Exception:  # noqa: BLE001 - it is too deep for Python's recursion, or its class derives no others
        found = next(filter(condition, leaves(group)), None)
        return (None, group) if found is None else (found, None)


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
    if (stray := stray_cancel(error)) is not None:
        raise stray


def stray_cancel(error: trio.Cancelled) -> StrayCancelError | None:
    """What a cancel is an error of, if nothing around this task has been cancelled; None: it is a cancel of ours."""
    if _ends_more(error):
        return None
    stray = StrayCancelError("a cancel was raised where nothing had been cancelled")
    stray.__cause__ = error
    return stray


def without_stray_cancels(group: BaseExceptionGroup[BaseException]) -> BaseExceptionGroup[BaseException]:
    """A group of the same leaves, whose cancels that nobody ordered are errors; ``group`` itself if it has none."""
    reported = [(isinstance(leaf, trio.Cancelled) and stray_cancel(leaf)) or leaf for leaf in leaves(group)]
    if not any(isinstance(leaf, StrayCancelError) for leaf in reported):
        return group
    return BaseExceptionGroup(group.message, reported)


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
    frame = _innermost_frame(error)
    return frame is not None and frame.tb_frame.f_globals.get("__name__") == module


def described(error: BaseException) -> str:
    """Class, place and text of an exception; of a group, of the first ``_DESCRIBED_MAX`` leaves."""
    return "; ".join(
        f"{type(leaf).__name__} {_place(leaf)}: {text_of(leaf)}" for leaf in islice(leaves(error), _DESCRIBED_MAX)
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
    frame = _innermost_frame(error)
    if frame is None:
        return "(nowhere)"
    return f"at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def _innermost_frame(error: BaseException) -> TracebackType | None:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame
