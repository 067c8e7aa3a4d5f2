"""Flood limits: token buckets for the HTTP/2 frames that cost a client nothing to send.

A frame above a limit raises ``FloodError``, and the connection ends with GOAWAY (ENHANCE_YOUR_CALM).
"""

from __future__ import annotations

import trio

from ...policy.token_bucket import TokenBucket
from . import frames
from .frames import Frame

# Frames at once, and per second in the long run. A browser that leaves a page with a hundred streams stays below.
_RESETS = (150, 20)
_CONTROLS = (500, 50)
_CONTROLS_PER_DATA = 3
"""Control frames allowed for each DATA frame that is sent: a WINDOW_UPDATE for both windows, and a PING."""


class FloodError(Exception):
    """The client exceeds a flood limit. The message names the frames."""


class FloodLimits:
    """The flood limits of one connection; a header block may have ``head_max`` bytes in all its frames."""

    def __init__(self, head_max: int) -> None:
        self._head_max = head_max
        self._head_bytes = 0
        self._resets = TokenBucket(*_RESETS)
        self._controls = TokenBucket(*_CONTROLS)

    def saw(self, frame: Frame, *, awaited: bool) -> None:
        """Count a received frame. ``awaited``: a request of its stream awaits its response.

        DATA counts if no request awaits it, or if it is empty and does not end its stream. HEADERS does not count, but
        the size of its header block is checked. RST_STREAM is counted by ``saw_reset``.

        Raises:
            FloodError: there are too many such frames, or the header block is larger than ``head_max``.
        """
        if frame.kind in (frames.HEADERS, frames.CONTINUATION):
            self._head_bytes = frame.length + (self._head_bytes if frame.kind == frames.CONTINUATION else 0)
            if self._head_bytes > self._head_max:
                raise FloodError(f"a header block has more than {self._head_max} bytes")
            if frame.kind == frames.CONTINUATION:
                self._spend(self._controls, "CONTINUATION frames")
        elif frame.kind == frames.DATA:
            if not awaited or (not frame.length and not frame.flags & frames.END_STREAM):
                self._spend(self._controls, "DATA frames that are empty or for no request")
        elif frame.kind != frames.RST_STREAM:
            self._spend(self._controls, "control frames")

    def saw_reset(self) -> None:
        """Count a reset of a stream by either side, because a client can make the server reset streams.

        Raises:
            FloodError: the limit is exceeded.
        """
        self._spend(self._resets, "stream resets")

    def saw_padding(self) -> None:
        """Count a DATA frame of padding alone.

        Raises:
            FloodError: the limit is exceeded.
        """
        self._spend(self._controls, "DATA frames of padding alone")

    def sent_data(self) -> None:
        """Allow the control frames with which a client acknowledges one DATA frame."""
        self._controls.grant(_CONTROLS_PER_DATA)

    def _spend(self, bucket: TokenBucket, what: str) -> None:
        if not bucket.spend(trio.current_time()):
            raise FloodError(f"the client floods the connection with {what}")
