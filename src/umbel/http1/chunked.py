"""Strict decoder of the chunked transfer coding (RFC 9112 section 7.1), without I/O.

Theory
------
*Problem.* A chunked body is a sequence of chunks, an empty chunk, and a trailer section:

    1a;ext=1 CRLF  <26 bytes> CRLF      a chunk: size in hexadecimal, extensions, data
    0 CRLF                              the last chunk
    name: value CRLF                    trailer fields, if any
    CRLF                                the end of the message

The bytes come in pieces that may end anywhere, even between CR and LF. The result must not depend on the pieces. Two
readers must never disagree about the end of the message, because that is request or response smuggling: so every
deviation from the grammar of the framing is an error, a bare LF too. (Extensions are not parsed; they may hold no
control character but tab.) The peer may be hostile, so the cost is linear in the bytes, and memory beside the content
is bounded.

*States and transitions* (``_State``). Every state but DATA and END reads one line that ends with CR LF:

    SIZE      line with size > 0   ->  DATA
    SIZE      line with size 0     ->  TRAILER
    DATA      ``_left`` bytes read ->  DATA_END
    DATA_END  empty line           ->  SIZE
    TRAILER   a field              ->  TRAILER      checked, counted and kept in ``trailers``
    TRAILER   empty line           ->  END          the remaining bytes belong to the next message

*Data.* ``_left`` is the number of data bytes that the current chunk still lacks; it is meaningful in DATA. ``_line`` is
the beginning of a line whose end has not come; it is empty in DATA and END. Content is appended to ``out`` as it comes,
so the decoder holds none of it.

*Bounds.* A line is rejected as soon as it is longer than allowed, before its end has come, so ``_line`` is bounded:
``_SIZE_LINE_MAX`` in SIZE, nothing in DATA_END, ``_overhead_left`` in TRAILER, each plus CR LF. ``_overhead_left``
starts at ``overhead_max`` and decreases by each chunk extension and each trailer field. ``_fields_left`` starts at
``fields_max`` and counts the trailer fields down. So ``trailers`` is bounded too.

*The shortcut.* ``_take_whole_chunks`` decodes the chunks that are complete in one piece, except the last chunk, by a
regular expression. It accepts only what the states above would accept and leaves everything else to them, so it never
changes the result.

*Errors.* After an exception the state is undefined: the decoder must not be fed again.

llhttp (through httptools) is not used, because it reports neither where the message ends nor the size of chunk
extensions, and it mixes trailer fields with header fields.
"""

from __future__ import annotations

import enum
import re

from ..core.http.header_field import Field
from ..core.http.syntax import FIELD_CHARS, TOKEN_CHARS, bytes_pattern
from .errors import MalformedMessageError, MessageTooLargeError

EXTENSION_MAX = 1024
"""Maximum bytes of the extensions of one chunk."""
_SIZE_LINE_MAX = 16 + EXTENSION_MAX
# chunk-size [ chunk-ext ]. 16 digits are 64 bits. Extensions are not parsed, but may hold no control character.
_SIZE_LINE = bytes_pattern(rf"([0-9A-Fa-f]{{1,16}})([ \t]*;[{FIELD_CHARS}]*)?")
# Anchored to the beginning of a line, so that even a search with this pattern takes linear time.
_SIZE_AND_END = re.compile(rb"(?:\A|(?<=\n))" + _SIZE_LINE.pattern + rb"\r\n")
# As a field line of a head (``response_head.py``); possessive, so that a match takes linear time.
_TRAILER_LINE = bytes_pattern(rf"\A([{TOKEN_CHARS}]++):([{FIELD_CHARS}]*+)")


class _State(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    END = enum.auto()


class ChunkedDecoder:
    """Decoder of one chunked body; see the module.

    Args:
        overhead_max: the maximum bytes of all chunk extensions and trailer fields of the body together.
        fields_max: the maximum number of trailer fields.
    """

    __slots__ = ("_at", "_fields_left", "_left", "_line", "_overhead_left", "trailers")

    def __init__(self, overhead_max: int, fields_max: int) -> None:
        self._at = _State.SIZE
        self._left = 0
        self._line = b""
        self._overhead_left = overhead_max
        self._fields_left = fields_max
        self.trailers: list[Field] = []
        """The trailer fields that have been read, in order; values without surrounding whitespace."""

    @property
    def ended(self) -> bool:
        """Whether the body is complete: the last chunk and the trailer section have been read."""
        return self._at is _State.END

    def feed(self, data: bytes, out: list[bytes]) -> bytes:
        """Decode ``data``, append the content to ``out``, and return the bytes after the end of the message.

        Raises:
            MalformedMessageError: the framing is malformed, or the chunk extensions exceed their limits.
            MessageTooLargeError: the trailer section exceeds its limits.
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
            # All other states read a line. The piece may end anywhere in the line, so the line is collected.
            end = data.find(b"\n", position)
            stop = size if end < 0 else end + 1
            self._line += data[position:stop]
            position = stop
            # Checked for each piece, also without a line end: ``_line`` must not grow without bound.
            self._check_length()
            if end >= 0:
                line, self._line = self._line, b""
                self._take_line(line)
        return data[position:]

    def _take_whole_chunks(self, data: bytes, position: int, out: list[bytes]) -> int:
        """Decode the complete chunks in ``data`` from ``position`` on; return the position after them.

        One read may hold ten thousand chunks of one byte; the steps of ``feed`` would take tens of milliseconds for
        them. The last chunk, an incomplete chunk and anything that is wrong are left to ``feed``.
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
            raise _bad("a chunk-size line is too long")
        if self._at is _State.DATA_END and self._line not in (b"\r", b"\r\n"):
            raise _bad("the data of a chunk is longer than its chunk size")
        if self._at is _State.TRAILER and size > self._overhead_left + 2:
            raise _too_big("the trailer section is too large")

    def _take_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise _bad("a line of the chunked framing ends with LF instead of CR LF")
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
            raise _bad("a chunk-size line is not 1 to 16 hexadecimal digits, alone or with valid extensions")
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
        match = _TRAILER_LINE.fullmatch(line)
        if match is None:
            raise _bad("a line of the trailer section is not a field")
        name, value = match.groups()
        self.trailers.append((name, name.lower(), value.strip(b" \t")))


def _bad(detail: str) -> MalformedMessageError:
    return MalformedMessageError(detail, "http_response_transfer_coding")


def _too_big(detail: str) -> MessageTooLargeError:
    return MessageTooLargeError(detail, "http_response_trailer_section_size")
