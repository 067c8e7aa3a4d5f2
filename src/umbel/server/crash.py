"""What an application raised: the crash in it, and the cancel that must go on.

Used by the guarded protocols around an application's call. It logs nothing.
"""

from __future__ import annotations

import trio


def crash_and_cancel(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Take an exception apart; a group that holds one exception alone stands for it."""
    if not isinstance(error, BaseExceptionGroup):
        return error, None
    cancelled, crash = error.split(trio.Cancelled)
    only: BaseException | None = crash
    while isinstance(only, BaseExceptionGroup) and len(only.exceptions) == 1:
        only = only.exceptions[0]
    return only, cancelled
