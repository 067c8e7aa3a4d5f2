"""Frame tracker: the boundaries of WebSocket frames and messages in received bytes (RFC 6455 section 5.2). No I/O.

wsproto does not report an incomplete frame before its payload, and an incomplete control frame not at all. The clock of
a message must start with the first byte of its first frame.
"""

from __future__ import annotations

_FIN = 0x80
_OPCODE, _CONTROL, _CLOSE = 0x0F, 0x08, 0x08
_MASKED = 0x80
_LENGTH = 0x7F
_EXTENDED = {126: 2, 127: 8}


class FrameTracker:
    """Follows a client's frames. Stores at most the head of one frame, and checks no rule of the protocol."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0
        """Bytes of payload that the present frame still lacks."""
        self._message_open = False
        """Whether the last data frame was not the final one of its message."""
        self.received = 0
        """Bytes of the incomplete message in data frames. Control frames in between do not count."""
        self.completed = 0
        """Frames after which no message was incomplete."""
        self.closed = False
        """Whether a whole close frame has come."""

    @property
    def inside(self) -> bool:
        """Whether a frame is incomplete."""
        return bool(self._head)

    @property
    def awaited(self) -> bool:
        """Whether a frame or a message is incomplete."""
        return self._message_open or bool(self._head)

    def feed(self, data: bytes) -> None:
        """Take the next received bytes."""
        at = 0
        while at < len(data):
            at = self._step(data, at)

    def feed_some(self, data: bytes, at: int, frames: int) -> int:
        """Take received bytes from the position ``at`` on, of at most ``frames`` frames. Return the position behind."""
        while at < len(data) and frames > 0:
            at = self._step(data, at)
            frames -= not self._head
        return at

    def feed_frame(self, data: bytes) -> int:
        """Take the next received bytes, at most to the end of the present or next frame. Return how many were taken."""
        return self.feed_some(data, 0, 1)

    def _step(self, data: bytes, at: int) -> int:
        """Take the head of a frame, or a part of it, and what is there of its payload. Return the position behind."""
        head = self._head
        if not self._left:
            if not head:
                head += data[at : at + 2]
                at += len(head)
            missing = _head_size(head) - len(head)
            if missing > 0:
                more = data[at : at + missing]
                head += more
                at += len(more)
                if len(more) < missing or _head_size(head) > len(head):
                    return at
            self._left = _payload_length(head)
        step = min(self._left, len(data) - at)
        self._left -= step
        if not head[0] & _CONTROL:
            self.received += step
        if not self._left:
            self._end_frame()
        return at + step

    def _end_frame(self) -> None:
        first = self._head[0]
        self.closed = self.closed or first & _OPCODE == _CLOSE
        if not first & _CONTROL:
            self.received += len(self._head)
            self._message_open = not first & _FIN
        self._head.clear()
        if not self._message_open:
            self.received = 0
            self.completed += 1


def _head_size(head: bytearray) -> int:
    """The size of a frame's head, as far as its present bytes say."""
    if len(head) < 2:
        return 2
    return 2 + _EXTENDED.get(head[1] & _LENGTH, 0) + (4 if head[1] & _MASKED else 0)


def _payload_length(head: bytearray) -> int:
    """The length of the payload according to a complete frame head."""
    length = head[1] & _LENGTH
    extended = _EXTENDED.get(length, 0)
    return int.from_bytes(head[2 : 2 + extended], "big") if extended else length
