"""A ``trio.Cancelled`` that was kept past the end of its scope, as code that catches every exception keeps it."""

from __future__ import annotations

import trio


async def kept_cancel() -> trio.Cancelled:
    """A Cancelled whose scope is over."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            return cancelled
    raise AssertionError("a cancelled scope cancels")
