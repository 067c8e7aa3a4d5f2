"""The boundaries of WebSocket frames and messages in a stream of bytes (RFC 6455 section 5.2), without I/O.

The protocol library reports an incomplete frame only once some of its payload has come, and a control frame not at
all. Whoever waits for a client has to know from the first byte on that it owes the rest.
"""

from __future__ import annotations

_FIN = 0x80
_CONTROL = 0x08
_MASKED = 0x80
_LENGTH = 0x7F
_EXTENDED = {126: 2, 127: 8}


class FrameTracker:
    """Follows the frames that a client sends. Keeps at most one frame's head, and judges nothing."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0
        """Bytes of payload that the present frame still lacks."""
        self._message_open = False
        self.received = 0
        """Bytes of data frames since nothing was incomplete. Control frames between them bring a message no further."""
        self.completed = 0
        """How many times a frame ended behind which nothing was incomplete."""

    @property
    def awaited(self) -> bool:
        """Whether a frame or a message has begun and not ended."""
        return self._message_open or bool(self._head) or self._left > 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        at = 0
        while at < len(data):
            if not self._left:
                self._head.append(data[at])
                at += 1
                if (length := _payload_length(self._head)) is None:
                    continue
                self._left = length
            step = min(self._left, len(data) - at)
            at += step
            self._left -= step
            if not self._head[0] & _CONTROL:
                self.received += step
            if not self._left:
                self._end_frame()

    def _end_frame(self) -> None:
        first = self._head[0]
        if not first & _CONTROL:
            self.received += len(self._head)
            self._message_open = not first & _FIN
        self._head.clear()
        if not self._message_open:
            self.received = 0
            self.completed += 1


def _payload_length(head: bytearray) -> int | None:
    """The length of the payload behind a whole head; None while the head is not whole."""
    if len(head) < 2:
        return None
    length = head[1] & _LENGTH
    extended = _EXTENDED.get(length, 0)
    if len(head) < 2 + extended + (4 if head[1] & _MASKED else 0):
        return None
    return int.from_bytes(head[2 : 2 + extended], "big") if extended else length
