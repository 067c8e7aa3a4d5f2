"""Exception groups: iterate over their leaves, separate crashes from cancels, unwrap groups of one.

Theory
------
A nursery wraps the exceptions of its tasks in a group. A group may therefore hold a cancel and a crash at once. Code
that handles such a group must lose neither: the crash must be reported, and the cancel must propagate, because the
cancelled scope waits for it. A *leaf* is an exception in a group that is no group itself.

Three rules hold for every function here.

- **No recursion over the depth of a group.** Code that is not under our control may raise a group that is nested
  thousands of levels deep; Python's stack would overflow. ``BaseExceptionGroup.split`` recurses, and calls ``derive``
  of the group's class, which may raise. So ``split`` is called in one place (``_split``), with a fallback over leaves.
- **An exception that is raised in place of its group keeps its** ``__context__``. By default Python would set the
  context to the group that is being handled. The group holds the exception, so the two would be a reference cycle.
- **No frame of this module keeps a reference to an exception that it raises.** The traceback of the exception holds the
  frame. A local name that leads to the exception would be a reference cycle, so such names are deleted.

``_ends_more`` defines which exceptions are cancels and must propagate; every other exception is a crash.
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
"""Maximum number of leaves that ``described`` describes."""
_TRACEBACK = BaseException.__dict__["__traceback__"]
"""The descriptor of Python's own attribute, which a subclass may override."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Iterate over the exceptions within ``error`` that are no groups, in order; ``error`` itself if it is no group."""
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup):
            waiting.extend(reversed(part.exceptions))
        else:
            yield part


def first_leaf(error: BaseException, kind: type[_Kind]) -> _Kind | None:
    """The first leaf of ``error`` that is an instance of ``kind``; None if there is none."""
    return next((leaf for leaf in leaves(error) if isinstance(leaf, kind)), None)


def holds_only(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether all leaves of ``error`` are instances of ``kind``."""
    return all(isinstance(leaf, kind) for leaf in leaves(error))


def cancel_reason(error: BaseException) -> str:
    """The cancel reason of the first ``Cancelled`` in ``error``; empty if there is no ``Cancelled`` or no reason."""
    cancelled = first_leaf(error, trio.Cancelled)
    return (cancelled.reason if cancelled is not None else None) or ""


def unwrapped(error: BaseException) -> BaseException:
    """``error`` without the groups of one member around it; ``error`` itself if it is no group of one member."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def raise_unwrapped(error: BaseException) -> None:
    """Raise ``unwrapped(error)`` in place of ``error``; return if ``error`` is no group of one member.

    To be called in the ``except`` block of ``error``, so that callers can catch a single exception by its type.
    """
    inner = unwrapped(error)
    if inner is not error:
        try:
            _raise_as_it_is(inner)
        finally:
            del error, inner


def raise_first_cancelled(error: BaseException) -> None:
    """Raise the first ``Cancelled`` of a group in place of the group; the other leaves are lost.

    Return if ``error`` is no group, or holds no ``Cancelled``. To be called in the ``except`` block of ``error``.
    """
    cancelled = first_leaf(error, trio.Cancelled)
    if cancelled is not None and cancelled is not error:
        try:
            _raise_as_it_is(cancelled)
        finally:
            del error, cancelled


def raise_cancels(error: BaseException) -> None:
    """Raise the ``Cancelled`` leaves of a group in place of the group, with its ``Exception`` leaves as their cause.

    Return if ``error`` is no group, does not hold both kinds, or holds another leaf such as KeyboardInterrupt. To be
    called in the ``except`` block of ``error``.
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
    """Return ``error`` as a pair: the crash, and the rest, which must propagate. None stands for an empty part.

    The parts of a group are groups. If a group cannot be split (see the module), its first cancel is the rest and
    there is no crash; a group without a cancel is the crash.

    To be called inside of the cancel scopes that may have been cancelled, because only there is a cancel recognised.
    """
    if isinstance(error, BaseExceptionGroup):
        rest, crashes = _split(error, _ends_more)
        return crashes, rest
    return (None, error) if _ends_more(error) else (error, None)


def split_application_crash(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """``split_crash`` for an exception of an application. The crash is unwrapped from groups of one member.

    If the exception itself raises when it is inspected or converted to text, the crash is an ``OpaqueError`` instead,
    and there is no rest.
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
    """``group.split(condition)``.

    If ``split`` raises: the first leaf that meets the condition and None, or None and the group if no leaf does.
    """
    try:
        return group.split(condition)
    except Exception:  # noqa: BLE001 - the group is too deep for Python's stack, or ``derive`` of its class raises
        found = next(filter(condition, leaves(group)), None)
        return (None, group) if found is None else (found, None)


class OpaqueError(RuntimeError):
    """Replacement for an exception that itself raises when it is inspected or converted to text."""


def _opaque(error: BaseException, broken: BaseException) -> OpaqueError:
    opaque = OpaqueError(
        f"a {type(error).__qualname__} cannot be inspected, because that raises {type(broken).__qualname__}"
    )
    opaque.__traceback__ = _TRACEBACK.__get__(error)
    return opaque


class StrayCancelError(RuntimeError):
    """An application raised a ``Cancelled`` although no scope around the task is cancelled.

    A ``Cancelled`` that the application kept from an earlier cancel is an example. It must not propagate as a
    ``Cancelled``, because the next cancel scope would catch it.
    """


def check_cancel(error: trio.Cancelled) -> None:
    """Check that ``error`` may come from a scope around the current task, because one of them is cancelled now.

    Raises:
        StrayCancelError: no scope around the current task is cancelled.
    """
    if (stray := stray_cancel(error)) is not None:
        raise stray


def stray_cancel(error: trio.Cancelled) -> StrayCancelError | None:
    """The ``StrayCancelError`` for ``error``; None if a scope around the current task is cancelled."""
    if _ends_more(error):
        return None
    stray = StrayCancelError("the application raised trio.Cancelled, but no cancel scope around it is cancelled")
    stray.__cause__ = error
    return stray


def without_stray_cancels(group: BaseExceptionGroup[BaseException]) -> BaseExceptionGroup[BaseException]:
    """Return a flat group of the leaves of ``group``, with a ``StrayCancelError`` for each stray ``Cancelled``.

    Return ``group`` itself if no ``Cancelled`` in it is stray.
    """
    reported = [(isinstance(leaf, trio.Cancelled) and stray_cancel(leaf)) or leaf for leaf in leaves(group)]
    if not any(isinstance(leaf, StrayCancelError) for leaf in reported):
        return group
    return BaseExceptionGroup(group.message, reported)


def _ends_more(error: BaseException) -> bool:
    """Whether an exception must propagate beyond the request; False: it is a crash of this request only.

    An application may raise anything: KeyboardInterrupt, GeneratorExit, SystemExit, another library's cancel or a
    BaseException of its own. All of these are crashes of one request. Three exceptions come from outside:

    * a ``Cancelled`` while a scope around the current task is cancelled;
    * the KeyboardInterrupt of Ctrl-C. trio's signal handler raises it, so the handler's frame is the innermost frame.
      (If the signal handler is not trio's, as in our own servers, Ctrl-C raises nothing here.);
    * the GeneratorExit of a coroutine that is closed while it waits, when the interpreter ends. Its innermost frame is
      trio's wait.
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
    """Describe an exception, or the first ``_DESCRIBED_MAX`` leaves of a group, by class, place and text."""
    return "; ".join(
        f"{type(leaf).__name__} {_place(leaf)}: {text_of(leaf)}" for leaf in islice(leaves(error), _DESCRIBED_MAX)
    )


def text_of(error: BaseException) -> str:
    """``str(error)``, or a note if ``__str__`` of the exception raises."""
    try:
        return str(error)
    except BaseException as broken:
        if _ends_more(broken):
            raise
        return f"(its text raises {type(broken).__qualname__})"


def _place(error: BaseException) -> str:
    """File and line of the innermost frame of the traceback."""
    frame = _innermost_frame(error)
    if frame is None:
        return "(nowhere)"
    return f"at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def _innermost_frame(error: BaseException) -> TracebackType | None:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame
