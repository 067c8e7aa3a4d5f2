"""A ``trio.Cancelled`` whose cancel scope has ended, as in code that catches BaseException and raises it later."""

from __future__ import annotations

import trio


async def stray_cancel() -> trio.Cancelled:
    """Return a Cancelled whose scope has ended."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            return cancelled
    raise AssertionError("the checkpoint of a cancelled scope did not raise Cancelled")
