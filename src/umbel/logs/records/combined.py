"""The combined log format of Apache and nginx: the line of a request, and the reading of such a line.

``host ident user [time] "request line" status bytes "referer" "user-agent"``. Values are escaped as nginx does:
``\\xHH`` replaces each quote, backslash and byte that is no printable ASCII character, in the request line also each
blank of a path. So no value can end its field or the line, and the request line has at most three words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from ...core.diagnostics.redact import Redactor, cut
from ...core.events import RequestEnded
from .record import PATH_CHARS_MAX, shown_method, shown_path

HOST_CHARS_MAX = 64
"""The bound on a client's address, which is ASCII; the longest IPv6 address with a zone has fewer characters."""

_SECOND_NS = 1_000_000_000
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNSAFE = re.compile(rb'[^\x20-\x7e]|["\\]')
_UNSAFE_IN_WORD = re.compile(rb'[^\x21-\x7e]|["\\]')
_UNSAFE_IN_HOST = re.compile(rb"[^0-9A-Za-z.:%_-]")
_ESCAPED = re.compile(rb"\\x([0-9A-Fa-f]{2})")
_START = re.compile(rb"[^ ]{1,256} - - \[([0-9]{2})/([A-Z][a-z]{2})/([0-9]{4}):([0-9]{2}:[0-9]{2}:[0-9]{2}) \+0000\] ")
_REST = re.compile(rb'"([^"]*)" ([0-9]{3}) ([0-9]{1,19}) "([^"]*)" "([^"]*)"')


class CombinedLines:
    """Makes the lines of requests.

    Args:
        redactor: hides the secrets.
        clock: the time in ns since 1970. A line has the time of its making, in UTC.
    """

    def __init__(self, redactor: Redactor, clock: Callable[[], int] = time.time_ns) -> None:
        self._redactor = redactor
        self._clock = clock
        self._second = -1, b""

    def line(self, event: RequestEnded) -> bytes:
        """Return the line of a request, without its line end.

        A Referer has no query and no fragment, because they may hold secrets. The user is always "-", because the
        subject of a credential may be personal data.
        """
        request, head = event.request, event.head
        words: list[bytes] = []
        if request.method:
            path = self._redactor.text(shown_path(request.path)) or "-"
            words = [_escaped(shown_method(request.method), _UNSAFE_IN_WORD), _escaped(path, _UNSAFE_IN_WORD)]
            if head is not None and head.version:
                version = "2.0" if head.version == "2" else head.version
                words.append(b"HTTP/" + _escaped(version[:HOST_CHARS_MAX], _UNSAFE_IN_WORD))
        referer = user_agent = b"-"
        if head is not None:
            referer = self._field(head.referer.partition("#")[0].partition("?")[0])
            user_agent = self._field(head.user_agent)
        return b'%b - - [%b] "%b" %d %d "%b" "%b"' % (
            _escaped(event.client[:HOST_CHARS_MAX], _UNSAFE_IN_HOST, HOST_CHARS_MAX) or b"-",
            self._time(),
            b" ".join(words) or b"-",
            event.status,
            event.bytes_sent,
            referer,
            user_agent,
        )

    def _field(self, value: str) -> bytes:
        shown = cut(value, PATH_CHARS_MAX)
        return _escaped(self._redactor.text(shown) + ("" if shown is value else "…"), _UNSAFE) or b"-"

    def _time(self) -> bytes:
        now = self._clock() // _SECOND_NS
        second, text = self._second
        if now != second:
            at = time.gmtime(now)
            # Not %b: the names of its months depend on the locale.
            text = time.strftime(f"%d/{_MONTHS[at.tm_mon - 1]}/%Y:%H:%M:%S +0000", at).encode()
            self._second = now, text
        return text


def _escaped(value: str, unsafe: re.Pattern[bytes], size: int | None = None) -> bytes:
    """Return the bytes of ``value``, at most ``size``, with those escaped that ``unsafe`` matches."""
    try:
        data = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # A surrogate that stands for no byte.
        data = value.encode("utf-8", "backslashreplace")
    return unsafe.sub(lambda match: b"\\x%02X" % match[0][0], data[:size])


def time_of(line: bytes) -> str | None:
    """Return the time of a combined line as the ``ts`` of a JSON record (UTC); None if ``line`` does not begin as one.

    The first 512 bytes of a line are enough.
    """
    start = _START.match(line)
    if start is None or (month := start[2].decode()) not in _MONTHS:
        return None
    return f"{start[3].decode()}-{_MONTHS.index(month) + 1:02d}-{start[1].decode()}T{start[4].decode()}Z"


def record_of(line: bytes) -> dict[str, Any] | None:
    """Read a combined line, without its line end, as a record with the names of the JSON format; None if it is none."""
    start = _START.match(line)
    if start is None or (ts := time_of(line)) is None or (rest := _REST.fullmatch(line, start.end())) is None:
        return None
    words = rest[1].split(b" ")
    values = (
        ("client.address", line.partition(b" ")[0]),
        ("http.request.method", words[0]),
        ("url.path", words[1] if len(words) > 1 else b"-"),
        ("network.protocol.version", words[2].removeprefix(b"HTTP/") if len(words) > 2 else b"-"),
        ("http.request.header.referer", rest[4]),
        ("user_agent.original", rest[5]),
    )
    return {
        "ts": ts,
        "http.response.status_code": int(rest[2]),
        "http.response.body.size": int(rest[3]),
        **{name: _unescaped(value) for name, value in values if value != b"-"},
    }


def _unescaped(value: bytes) -> str:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), value).decode("utf-8", "backslashreplace")
