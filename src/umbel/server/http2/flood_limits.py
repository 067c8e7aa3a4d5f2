"""Limits on the frames of HTTP/2 that cost a client nothing to send.

Frames are counted before and after the protocol library has seen them. A limit that is exceeded raises; nothing is sent
here.
"""

from __future__ import annotations

import trio

from ..limits.token_bucket import TokenBucket
from . import frames
from .frames import Frame

# At once, and per second: far above what clients do (a page of a hundred streams is left), far below a flood.
_RESETS = (150, 20)
_CONTROLS = (500, 50)
_CONTROLS_PER_DATA = 3
"""Control frames allowed for each DATA frame sent: a WINDOW_UPDATE for either window, and a PING that measures."""


class FloodError(Exception):
    """The client sends more frames that cost it nothing than the limits allow."""


class FloodLimits:
    """The token buckets of one connection."""

    def __init__(self, head_max: int) -> None:
        self._head_max = head_max
        self._head_bytes = 0
        self._resets = TokenBucket(*_RESETS)
        self._controls = TokenBucket(*_CONTROLS)

    def saw(self, frame: Frame, *, awaited: bool) -> None:
        """Count a frame by its kind; DATA also by whether a request of its stream is ``awaited``.

        Raises:
            FloodError: it is one too many, or one piece too many of a header block that never ends.
        """
        if frame.kind in (frames.HEADERS, frames.CONTINUATION):
            self._head_bytes = frame.length + (self._head_bytes if frame.kind == frames.CONTINUATION else 0)
            if self._head_bytes > self._head_max:
                raise FloodError("a header block is far over the limit")
            if frame.kind == frames.CONTINUATION:
                self._spend(self._controls, "pieces of header blocks")
        elif frame.kind == frames.DATA:
            if not awaited or (not frame.length and not frame.flags & frames.END_STREAM):
                self._spend(self._controls, "DATA for nothing")
        elif frame.kind != frames.RST_STREAM:
            self._spend(self._controls, "control frames")

    def saw_reset(self) -> None:
        """Count a stream that was reset, by whichever side: a client can make the server do so.

        Raises:
            FloodError: it is one too many.
        """
        self._spend(self._resets, "resets")

    def saw_padding(self) -> None:
        """Count a DATA frame that brought nothing but padding.

        Raises:
            FloodError: it is one too many.
        """
        self._spend(self._controls, "padding")

    def sent_data(self) -> None:
        """Note that a DATA frame is sent, which clients acknowledge."""
        self._controls.grant(_CONTROLS_PER_DATA)

    def _spend(self, bucket: TokenBucket, what: str) -> None:
        if not bucket.spend(trio.current_time()):
            raise FloodError(f"the client floods the connection with {what}")
