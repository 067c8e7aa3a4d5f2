"""Takes apart what an application raised: the crash in it, and the cancel that must go on upwards.

Used wherever an application's call ends. An exception group may hold both, and must lose neither. It logs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

_TOLD_MAX = 5
"""Exceptions of one group that are told."""


def apart(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The crash in ``error``, and the rest: cancels, KeyboardInterrupt and the like.

    A handler's ``sys.exit()`` is a crash of it: one request must not end the others. A crash that a group holds alone
    stands for the group.
    """
    if not isinstance(error, BaseExceptionGroup):
        return (error, None) if isinstance(error, Exception | SystemExit) else (None, error)
    crashes, rest = error.split((Exception, SystemExit))
    crash: BaseException | None = crashes
    while isinstance(crash, BaseExceptionGroup) and len(crash.exceptions) == 1:
        crash = crash.exceptions[0]
    return crash, rest


def is_nothing_but(kind: type[Exception], error: BaseException) -> bool:
    """Whether ``error`` is of that kind, or a group of such alone."""
    return all(isinstance(leaf, kind) for leaf in _leaves(error))


def described(error: BaseException) -> str:
    """Class, place and text of an exception; of a group, of those that it is about."""
    return "; ".join(f"{type(leaf).__name__} {_place(leaf)}: {leaf}" for leaf in islice(_leaves(error), _TOLD_MAX))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _place(error: BaseException) -> str:
    """File and line of the innermost frame."""
    frame = error.__traceback__
    if frame is None:
        return "(nowhere)"
    while frame.tb_next is not None:
        frame = frame.tb_next
    return f"at {frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
