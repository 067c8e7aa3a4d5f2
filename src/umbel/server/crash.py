"""Takes apart what an application raised: the crash in it, and the cancel that must go on upwards.

Used wherever an application's call ends. An exception group may hold both, and must lose neither. It logs nothing.
"""

from __future__ import annotations


def apart(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """The crash in ``error``, and the rest: cancels, KeyboardInterrupt and the like.

    A crash that a group holds alone stands for the group.
    """
    if not isinstance(error, BaseExceptionGroup):
        return (error, None) if isinstance(error, Exception) else (None, error)
    crashes, rest = error.split(Exception)
    crash: BaseException | None = crashes
    while isinstance(crash, BaseExceptionGroup) and len(crash.exceptions) == 1:
        crash = crash.exceptions[0]
    return crash, rest
