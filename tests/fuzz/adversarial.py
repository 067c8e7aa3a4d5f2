"""Requests that are expensive to parse: adversarial strings in the path, the query, a field or the JSON body.

The strings come from the regular expressions of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from tests.support.source.adversarial import PumpedText, texts_of_pattern
from tests.support.source.regex_patterns import find_patterns
from umbel.core.diagnostics.redact import Redactor

MAX_BODY = 1_000_000

_HEAD_SIZES = (1000, 4000, 8000, 15_000)
_BODY_SIZES = (16_000, 64_000, 250_000, MAX_BODY)
_FIELDS = (
    *("Cookie", "Content-Type", "Accept", "Prefer", "X-Forwarded-For", "Forwarded", "traceparent", "tracestate", "Via"),
    *("User-Agent", "X-Request-Id", "Connection", "TE", "Expect", "Upgrade", "Authorization", "If-None-Match", "Range"),
    *("Host", "Content-Length", "Transfer-Encoding", "Accept-Encoding", "Origin", "Referer"),
)
_FOR_JSON = (
    *(
        "[",
        "]",
        "{",
        '{"a":',
        ",",
        '"',
        '\\"',
        "\\",
        "1e308,",
        "1e-320,",
        "9007199254740993e0,",
        "[],",
        '"a",',
        "1,",
        " ",
    ),
    *("\\u0000", "\\ud800", "0.1,", "-", "null,", '{"":', "token", "password=", "eyJabcdef."),
)
_STARTS = ("", "[", '["', "{", '{"a":', "," * 200_001 + '"', "[" * 200)
_WORDS = ("secret.a.", "token=a ", "://", "@", "%2e", "%", "/", "//", ";", "=", "&", "+", "%E9", "eyJa-", "bearer ")


@cache
def _texts() -> Sequence[PumpedText]:
    """Shapes of all regular expressions of the source, and of words that its parsers recognise."""
    patterns = [found.pattern for found in find_patterns() if found.pattern is not None]
    texts = {pumped for pattern in (*patterns, Redactor()._candidate) for pumped in texts_of_pattern(pattern)}
    return [*sorted(texts), *(PumpedText("", word, "") for word in _WORDS)]


def made(rng: Random) -> bytes:
    """Make a request with one adversarial string in its path, its query, a field or its JSON body."""
    return rng.choice((_in_path, _in_query, _in_field, _in_field, _in_json))(rng)


def _text(rng: Random) -> bytes:
    return rng.choice(_texts()).data(rng.choice(_HEAD_SIZES))


def _in_path(rng: Random) -> bytes:
    return _request(b"GET " + rng.choice((b"/=", b"/r/", b"/up/", b"/", b"")) + _visible(_text(rng)))


def _in_query(rng: Random) -> bytes:
    return _request(b"GET /r?" + rng.choice((b"", b"a=")) + _visible(_text(rng)))


def _in_field(rng: Random) -> bytes:
    value = _text(rng).replace(b"\r", b" ").replace(b"\n", b" ").replace(b"\x00", b" ")
    name = rng.choice(_FIELDS).encode()
    body = b"[1]" if rng.random() < 0.5 and name not in (b"Content-Length", b"Transfer-Encoding") else b""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return _request(rng.choice((b"GET /r", b"POST /echo")), length + name + b": " + value + b"\r\n", body)


def _in_json(rng: Random) -> bytes:
    pump = "".join(rng.choice(_FOR_JSON) for _ in range(rng.choice((1, 1, 2, 3))))
    pumped = PumpedText(rng.choice(_STARTS), pump, rng.choice(("", "1]", '"]', "]", "}")))
    body = pumped.data(rng.choice(_BODY_SIZES))[:MAX_BODY]
    head = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return _request(b"POST /echo", head, body)


def _visible(text: bytes) -> bytes:
    """Encode the bytes that would end the target. Other invalid bytes stay; the server must refuse them."""
    return text.replace(b" ", b"%20").replace(b"\r", b"%0D").replace(b"\n", b"%0A")


def _request(line: bytes, fields: bytes = b"", body: bytes = b"") -> bytes:
    return line + b" HTTP/1.1\r\nHost: gateway.test\r\n" + fields + b"\r\n" + body
