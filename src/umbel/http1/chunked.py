"""Strict decoder of the chunked transfer coding (RFC 9112 section 7.1), without I/O.

llhttp would decode it too, but shows neither the end of the message nor the size of the chunk
extensions, and gives trailers as header fields.
"""

from __future__ import annotations

import enum
import re

from ..core.http.syntax import FIELD_CHARS, TOKEN_CHARS, bytes_pattern
from .errors import MalformedMessageError, MessageTooLargeError

EXTENSION_MAX = 1024
"""Bytes of the extensions of one chunk. Longer ones are an attack."""
_SIZE_LINE_MAX = 16 + EXTENSION_MAX
# chunk-size [ *( BWS ";" ... ) ]; 16 digits are 64 bits, and no control character passes.
_SIZE_LINE = bytes_pattern(rf"([0-9A-Fa-f]{{1,16}})([ \t]*;[{FIELD_CHARS}]*)?")
# A line begins with the data or behind a line end. Said here, the pattern is linear however it is used.
_SIZE_AND_END = re.compile(rb"(?:\A|(?<=\n))" + _SIZE_LINE.pattern + rb"\r\n")
_TRAILER_LINE = bytes_pattern(rf"\A[{TOKEN_CHARS}]+:[{FIELD_CHARS}]*")


class _State(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    END = enum.auto()


class ChunkedDecoder:
    """Decoder of a chunked body. Trailer fields are checked, counted and dropped.

    ``overhead_max`` bounds the bytes of all chunk extensions and trailer fields of the message together, and
    ``fields_max`` the number of trailer fields.
    """

    __slots__ = ("_at", "_fields_left", "_left", "_line", "_overhead_left")

    def __init__(self, overhead_max: int, fields_max: int) -> None:
        self._at = _State.SIZE
        self._left = 0
        self._line = b""
        self._overhead_left = overhead_max
        self._fields_left = fields_max

    @property
    def ended(self) -> bool:
        """Whether the last chunk and the trailer section have been read."""
        return self._at is _State.END

    def feed(self, data: bytes, out: list[bytes]) -> bytes:
        """Decode ``data``, append the content to ``out``, and return what stands behind the message's end.

        Raises:
            MalformedMessageError: bad framing (``http_response_transfer_coding``).
            MessageTooLargeError: a trailer section over its bounds.
        """
        position, size = 0, len(data)
        while position < size and self._at is not _State.END:
            if self._at is _State.SIZE and not self._line:
                position = self._take_whole_chunks(data, position, out)
                if position == size:
                    break
            if self._at is _State.DATA:
                piece = data[position : position + self._left]
                out.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._at = _State.DATA_END
                continue
            # Everything else is a line that ends with CR LF, and may be cut anywhere.
            end = data.find(b"\n", position)
            stop = size if end < 0 else end + 1
            self._line += data[position:stop]
            position = stop
            self._check_length()
            if end >= 0:
                line, self._line = self._line, b""
                self._take_line(line)
        return data[position:]

    def _take_whole_chunks(self, data: bytes, position: int, out: list[bytes]) -> int:
        """Append the content of the chunks that lie whole in ``data`` from ``position`` on; return where they end.

        Chunks of a byte each come by the ten thousand per read: step by step they would hold the loop for tens of
        milliseconds. Anything but a size within its bounds with its data and its end is left to the other steps.
        """
        while (found := _SIZE_AND_END.match(data, position)) is not None:
            begin = found.end()
            end = begin + int(found[1], 16)
            if end == begin or data[end : end + 2] != b"\r\n":
                break
            if (extension := found[2]) is not None:
                if len(extension) > min(EXTENSION_MAX, self._overhead_left):
                    break
                self._overhead_left -= len(extension)
            out.append(data[begin:end])
            position = end + 2
        return position

    def _check_length(self) -> None:
        size = len(self._line)
        if self._at is _State.SIZE and size > _SIZE_LINE_MAX + 2:
            raise _bad("a chunk-size line is longer than any extension may be")
        if self._at is _State.DATA_END and self._line not in (b"\r", b"\r\n"):
            raise _bad("a chunk is longer than its size")
        if self._at is _State.TRAILER and size > self._overhead_left + 2:
            raise _too_big("the trailer section is too large")

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise _bad("a line of the chunk framing ends with a bare LF")
        line = line[:-2]
        if self._at is _State.SIZE:
            self._take_size(line)
        elif self._at is _State.DATA_END:
            self._at = _State.SIZE
        elif line:
            self._take_trailer(line)
        else:
            self._at = _State.END

    def _take_size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise _bad("a chunk size is not a hexadecimal number")
        extension = len(match[2] or b"")
        self._overhead_left -= extension
        if extension > EXTENSION_MAX or self._overhead_left < 0:
            raise _bad("the chunk extensions are too large")
        self._left = int(match[1], 16)
        self._at = _State.DATA if self._left else _State.TRAILER

    def _take_trailer(self, line: bytes) -> None:
        self._overhead_left -= len(line)
        self._fields_left -= 1
        if self._overhead_left < 0 or self._fields_left < 0:
            raise _too_big("the trailer section is too large")
        if _TRAILER_LINE.fullmatch(line) is None:
            raise _bad("a line of the trailer section is no field")


def _bad(detail: str) -> MalformedMessageError:
    return MalformedMessageError(detail, "http_response_transfer_coding")


def _too_big(detail: str) -> MessageTooLargeError:
    return MessageTooLargeError(detail, "http_response_trailer_section_size")
