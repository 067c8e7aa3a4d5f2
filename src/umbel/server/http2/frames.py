"""HTTP/2 frames (RFC 9113 section 4.1): splitting received bytes into frames, and encoding frames. No I/O.

The server needs the frames before the protocol library acts on them, to count those that cost a client nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM = 0x01
END_HEADERS = 0x04
NO_LAST_STREAM = 2**31 - 1
"""Last stream id of a first GOAWAY: requests that are on their way are still answered (section 6.8)."""

_HEAD = 9
_KIND_AT = 3
_RESERVED = 2**31 - 1
_FRAME_HEAD = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")
_SETTING_MAX = 0x10
"""Settings up to this id are known; the registry ends at 0x9 (RFC 9218)."""


class Frame(NamedTuple):
    """One received frame. ``kind``, ``flags`` and ``stream_id`` are the values in its head."""

    kind: int
    flags: int
    stream_id: int
    length: int
    """Bytes of payload, according to the frame's head."""
    data: bytes
    """The whole frame, its head of nine bytes included."""

    @property
    def is_too_long(self) -> bool:
        """Whether ``length`` exceeds the limit; ``data`` is the head alone then."""
        return len(self.data) < _HEAD + self.length


class FrameSplitter:
    """Splits received bytes into frames. Between calls of ``cut`` it holds at most one incomplete frame.

    ``length_max``: the most bytes of payload that a frame may have.
    """

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._buffer = bytearray()
        self.in_head = False
        """Whether a header block is incomplete after the last complete frame."""

    def cut(self, data: bytes) -> Iterator[Frame]:
        """Take ``data``, and yield the frames that are complete. Of a frame that is too long, yield the head alone."""
        self._buffer += data
        while len(self._buffer) >= _HEAD:
            high, low, kind, flags, stream_id = _FRAME_HEAD.unpack_from(self._buffer)
            length = high << 16 | low
            end = _HEAD + length if length <= self._length_max else _HEAD
            if len(self._buffer) < end:
                return
            frame = Frame(kind, flags, stream_id & _RESERVED, length, bytes(self._buffer[:end]))
            del self._buffer[:end]
            if kind in (HEADERS, CONTINUATION):
                self.in_head = not flags & END_HEADERS
            yield frame

    @property
    def begun(self) -> bool:
        """Whether a frame is incomplete."""
        return bool(self._buffer)

    @property
    def head_begun(self) -> bool:
        """Whether a header block is incomplete, the incomplete first frame of one included."""
        return self.in_head or (len(self._buffer) > _KIND_AT and self._buffer[_KIND_AT] == HEADERS)


def known_settings(frame: Frame) -> bytes:
    """The bytes of ``frame``. From a SETTINGS frame the unknown settings are removed.

    A receiver ignores unknown settings (RFC 9113 section 6.5.2). The protocol library keeps them with their history,
    and walks through them for each later SETTINGS frame: 65,536 of them take 50 MB per connection.
    """
    if frame.kind != SETTINGS or not frame.length or frame.length % _SETTING.size:
        return frame.data
    known = {key: value for key, value in _SETTING.iter_unpack(frame.data[_HEAD:]) if key <= _SETTING_MAX}
    payload = b"".join(_SETTING.pack(key, value) for key, value in known.items())
    return len(payload).to_bytes(3, "big") + frame.data[_KIND_AT:_HEAD] + payload


def frame_head(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The head of a frame: nine bytes."""
    return _FRAME_HEAD.pack(length >> 16, length & 0xFFFF, kind, flags, stream_id)


def goaway(last_stream_id: int, error_code: int = 0) -> bytes:
    """A GOAWAY frame (section 6.8). The library's own method would move its connection to the closed state."""
    return struct.pack(">BHBBIII", 0, 8, GOAWAY, 0, 0, last_stream_id, error_code)
