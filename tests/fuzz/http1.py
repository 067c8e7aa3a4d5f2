"""Mutations of HTTP/1.1 input along its grammar: lines, fields, numbers, chunks and separators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

CRLF = b"\r\n"

# Strings that HTTP parsers interpret differently. HEAD is left out: its response could not be parsed without knowing
# whether the server took the request for a HEAD.
TOKENS: Sequence[bytes] = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff", b":"),
    *(b";", b",", b"0", b"-1", b"+1", b"0x10", b"1_0", b"99999999999999999999", b"ffffffffffffffff", b"%00", b"%2e%2e"),
    *(
        b"/../",
        b"//",
        b"?",
        b"#",
        b"@",
        b"*",
        b"http://gateway.test/",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/2.0",
        b"HTTP/0.9",
    ),
    *(b"GET", b"POST", b"OPTIONS", b"CONNECT", b"DELETE", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"BREW", b"get"),
)
FIELDS: Sequence[bytes] = (
    *(b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: 5, 5", b"Content-Length:", b"Content-Length: 1e1"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:chunked\x0b"),
    *(b"Transfer-Encoding : chunked", b"transfer-encoding: Chunked", b"X: 1\r\n folded", b"Host: other", b"Host:"),
    *(b"Expect: 100-continue", b"Expect: x", b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade"),
    *(
        b"Upgrade: h2c",
        b"Upgrade: websocket",
        b"HTTP2-Settings: AAAA",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: x",
    ),
    *(
        b"Sec-WebSocket-Protocol: \xff",
        b"X_Y: 1",
        b"X-A: " + b"a" * 5000,
        b"X-Forwarded-For: \xff",
        b"Forwarded: ;;=",
        b"Cookie: \xe9",
    ),
    *(b"traceparent: 00-0-0-0", b"Prefer: wait=-1", b"X-Request-Id: \x01", b"Content-Type: \xff", b"Accept: ;q=x"),
)
CHUNKS: Sequence[bytes] = (
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"5;a=b\r\nhello\r\n",
    b"zz\r\n",
    b"5\r\nhello",
    b"0\r\nX: 1\r\n\r\n",
)

Mutation = Callable[[bytes, Random], bytes]


def _at(data: bytes, rng: Random) -> int:
    return rng.randrange(len(data) + 1)


def insert_token(data: bytes, rng: Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def insert_field(data: bytes, rng: Random) -> bytes:
    """Add a field after some line."""
    lines = data.split(CRLF)
    lines.insert(rng.randrange(len(lines)) + 1, rng.choice(FIELDS))
    return CRLF.join(lines)


def insert_chunk(data: bytes, rng: Random) -> bytes:
    lines = data.split(CRLF)
    lines.insert(rng.randrange(len(lines)) + 1, rng.choice(CHUNKS))
    return CRLF.join(lines)


def drop_line(data: bytes, rng: Random) -> bytes:
    lines = data.split(CRLF)
    del lines[rng.randrange(len(lines))]
    return CRLF.join(lines)


def repeat_line(data: bytes, rng: Random) -> bytes:
    lines = data.split(CRLF)
    at = rng.randrange(len(lines))
    lines[at:at] = [lines[at]] * rng.choice((1, 2, 120))
    return CRLF.join(lines)


def swap_lines(data: bytes, rng: Random) -> bytes:
    lines = data.split(CRLF)
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return CRLF.join(lines)


def other_line_end(data: bytes, rng: Random) -> bytes:
    lines = data.split(CRLF)
    at = rng.randrange(len(lines)) + 1
    return CRLF.join(lines[:at]) + rng.choice((b"\n", b"\r", b"\r\r\n", b" \r\n", b"\0")) + CRLF.join(lines[at:])


def change_byte(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def cut_out(data: bytes, rng: Random) -> bytes:
    a, b = sorted((_at(data, rng), _at(data, rng)))
    return data[:a] + data[min(b, a + 40) :]


def truncate(data: bytes, rng: Random) -> bytes:
    return data[: _at(data, rng)]


def stretch(data: bytes, rng: Random) -> bytes:
    """Repeat one byte, up to more often than any limit of a head allows."""
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + data[at : at + 1] * rng.choice((10, 200, 9000, 17_000)) + data[at:]


MUTATIONS: Sequence[Mutation] = (
    *(insert_token, insert_token, insert_field, insert_field, insert_chunk, drop_line, repeat_line, swap_lines),
    *(other_line_end, change_byte, change_byte, cut_out, truncate, stretch),
)


def mutated(corpus: Sequence[bytes], rng: Random) -> bytes:
    """Make a new input: one or two stored inputs in sequence, with one to four mutations."""
    data = b"".join(rng.choice(corpus) for _ in range(rng.choice((1, 1, 2))))
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        data = rng.choice(MUTATIONS)(data, rng)
    return data
