"""Response reader: framing, limits, errors, and independence of the division into pieces."""

from __future__ import annotations

from dataclasses import dataclass, field

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.core.failure_kinds import Kind
from umbel.http1.errors import MessageError, MessageTooLargeError, NoMessageError
from umbel.http1.response_reader import INFORMATIONAL_MAX, Limits, ResponseReader
from umbel.upstream.errors import ConnectionReset, response_failed

OK = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Read:
    """Result of reading a response."""

    status: int | None = None
    body: bytes = b""
    ended: bool = False
    excess: bool = False
    keep_alive: bool | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    error: tuple[Kind, str | None] | None = None


def read(raw: bytes, *, method: str = "GET", eof: bool = True, piece: int | None = None, limits: Limits | None = None):
    reader = ResponseReader(method, limits or Limits())
    result = Read()
    body = b""
    try:
        size = piece or len(raw) or 1
        for start in range(0, len(raw), size):
            reader.feed(raw[start : start + size])
            body += reader.take()
        if eof:
            reader.feed_eof()
    except MessageError as error:
        failure = response_failed(error)
        result.error = (failure.kind, failure.proxy_error)
        return result
    if reader.head is not None:
        result.status, result.keep_alive = reader.head.status, reader.head.keep_alive
        result.headers = [(name, value) for name, _, value in reader.head.fields]
    result.body, result.ended, result.excess = body, reader.ended, reader.excess
    return result


def either_way(raw: bytes, **options) -> Read:
    """The result of reading, after a check that it is the same for several divisions into pieces."""
    whole = read(raw, **options)
    for piece in (1, 2, 3, 7):
        assert read(raw, piece=piece, **options) == whole
    return whole


GOOD = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "length zero": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!", True),
    "chunked in capitals": (
        OK + b"TRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        b"0123456789",
        True,
    ),
    "chunk extension": (OK + b'Transfer-Encoding: chunked\r\n\r\n2;a=b;c="d"\r\nok\r\n0;x\r\n\r\n', b"ok", True),
    "leading zeros in a size": (OK + b"Transfer-Encoding: chunked\r\n\r\n0002\r\nok\r\n000\r\n\r\n", b"ok", True),
    "trailers": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\nSet-Cookie: a=b\r\n\r\n",
        b"ok",
        True,
    ),
    "until the end": (OK + b"\r\nhello", b"hello", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", False),
    "HTTP/1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "HTTP/1.0 kept": (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "close": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "close among others": (OK + b"Connection: x-a, Close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "100 first": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", b"ok", True),
    "103 first": (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", b"ok", True),
    "bytes over 127 in a value": (OK + b"X: \xe9\xff\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "an empty value": (OK + b"X:\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
}


@pytest.mark.parametrize(("raw", "body", "keep_alive"), GOOD.values(), ids=GOOD)
def test_a_valid_response_is_read_from_any_pieces(raw: bytes, body: bytes, keep_alive: bool) -> None:
    result = either_way(raw)
    assert (result.error, result.status, result.body) == (None, 200, body)
    assert (result.ended, result.excess, result.keep_alive) == (True, False, keep_alive)


MALFORMED = {
    "empty status line": b"\r\n\r\n",
    "a blank line first": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\n\r\n",
    "ICE": b"ICE/1.0 200 OK\r\n\r\n",
    "lower case": b"http/1.1 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n\r\n",
    "status 20": b"HTTP/1.1 20 OK\r\n\r\n",
    "status 2000": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\n\r\n",
    "status 600": b"HTTP/1.1 600 OK\r\n\r\n",
    "status abc": b"HTTP/1.1 abc OK\r\n\r\n",
    "status 101": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "NUL in a value": OK + b"X: a\0b\r\n\r\n",
    "a control character in a value": OK + b"X: a\x01b\r\n\r\n",
    "DEL in a value": OK + b"X: a\x7fb\r\n\r\n",
    "bare CR in a value": OK + b"X: a\rb\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "one bare LF": OK + b"A: b\nContent-Length: 2\r\n\r\nok",
    "a folded line": OK + b"X: a\r\n b\r\n\r\n",
    "a folded first line": OK + b" X: a\r\n\r\n",
    "a space before the colon": OK + b"X : a\r\n\r\n",
    "no colon": OK + b"nothing\r\n\r\n",
    "no name": OK + b": a\r\n\r\n",
    "length twice, different": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "length twice, the same": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "length as a list": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "length with a sign": OK + b"Content-Length: +2\r\n\r\nok",
    "length negative": OK + b"Content-Length: -2\r\n\r\nok",
    "length in hex": OK + b"Content-Length: 0x2\r\n\r\nok",
    "length empty": OK + b"Content-Length:\r\n\r\nok",
    "length huge": OK + b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "length with chunked": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked with length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked, chunked": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "identity": OK + b"Transfer-Encoding: identity\r\n\r\nok",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked in a 304 with a length": b"HTTP/1.1 304 N\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
}
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BAD_CHUNKS = {
    "size not hex": b"xyz\r\n",
    "size empty": b"\r\n",
    "size with a sign": b"+2\r\nok\r\n0\r\n\r\n",
    "size with 0x": b"0x2\r\nok\r\n0\r\n\r\n",
    "size with an underscore": b"1_0\r\n",
    "size of 17 digits": b"00000000000000002\r\nok\r\n0\r\n\r\n",
    "a space behind the size": b"2 \r\nok\r\n0\r\n\r\n",
    "bare LF behind the size": b"2\nok\r\n0\r\n\r\n",
    "bare LF behind the data": b"2\r\nok\n0\r\n\r\n",
    "more data than the size": b"2\r\noks\r\n0\r\n\r\n",
    "less data than the size": b"5\r\nok\r\n0\r\n\r\n",
    "a control character in an extension": b"2;a\x00\r\nok\r\n0\r\n\r\n",
    "a long extension": b"2;" + b"x" * 1100 + b"\r\nok\r\n0\r\n\r\n",
    "an endless extension": b"2;" + b"x" * 3000,
    "endless extensions": (b"1;" + b"x" * 1000 + b"\r\no\r\n") * 80,
    "a trailer that is none": b"0\r\nnothing\r\n\r\n",
    "a folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "bare LF behind a trailer": b"0\r\nX: a\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_a_bad_head_is_malformed(raw: bytes) -> None:
    assert either_way(raw, eof=False).error == (Kind.MALFORMED, "http_protocol_error")


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_bad_chunk_framing_is_malformed(chunks: bytes) -> None:
    kind, error = either_way(CHUNKED + chunks, eof=False).error or (None, None)
    assert (kind, error) == (Kind.MALFORMED, "http_response_transfer_coding")


CUT = {
    "inside the status line": b"HTTP/1.1 20",
    "inside the head": OK + b"Content-Length: 2\r\n",
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "before the body": OK + b"Content-Length: 2\r\n\r\n",
    "inside the body": OK + b"Content-Length: 2\r\n\r\no",
    "before a chunk": CHUNKED,
    "inside a chunk size": CHUNKED + b"2",
    "inside a chunk": CHUNKED + b"2\r\no",
    "behind a chunk": CHUNKED + b"2\r\nok",
    "before the last chunk": CHUNKED + b"2\r\nok\r\n",
    "inside the trailers": CHUNKED + b"2\r\nok\r\n0\r\nX: a\r\n",
}


@pytest.mark.parametrize("raw", CUT.values(), ids=CUT)
def test_a_close_in_the_middle_of_a_response_is_incomplete(raw: bytes) -> None:
    assert either_way(raw).error == (Kind.MALFORMED, "http_response_incomplete")


def test_a_close_before_the_first_byte_is_no_message() -> None:
    with pytest.raises(NoMessageError) as caught:
        ResponseReader("GET", Limits()).feed_eof()
    failure = response_failed(caught.value)
    assert isinstance(failure, ConnectionReset)
    assert (failure.kind, failure.untouched, failure.proxy_error) == (Kind.RESET, True, caught.value.proxy_error)


BEHIND = [b"x", b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"]


@pytest.mark.parametrize("rest", BEHIND)
@pytest.mark.parametrize(
    ("raw", "method"),
    [
        (OK + b"Content-Length: 2\r\n\r\nok", "GET"),
        (OK + b"Content-Length: 0\r\n\r\n", "GET"),
        (CHUNKED + b"2\r\nok\r\n0\r\nX: a\r\n\r\n", "GET"),
        (OK + b"Content-Length: 2\r\n\r\n", "HEAD"),
        (b"HTTP/1.1 204 No\r\n\r\n", "GET"),
        (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", "GET"),
    ],
)
def test_bytes_after_the_end_are_excess_and_no_part_of_the_body(raw: bytes, method: str, rest: bytes) -> None:
    plain = either_way(raw, method=method)
    result = either_way(raw + rest, method=method)
    assert (result.error, result.ended, result.excess) == (None, True, True)
    assert (result.body, result.headers) == (plain.body, plain.headers)
    assert not plain.excess


@pytest.mark.parametrize("fields", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
@pytest.mark.parametrize(("status", "method"), [(b"200", "HEAD"), (b"204", "GET"), (b"304", "GET"), (b"404", "HEAD")])
def test_a_response_without_a_body_ends_with_its_head(fields: bytes, status: bytes, method: str) -> None:
    result = either_way(b"HTTP/1.1 " + status + b" X\r\n" + fields + b"\r\n", method=method, eof=False)
    assert (result.error, result.ended, result.body, result.keep_alive) == (None, True, b"", True)


def test_trailers_and_hop_by_hop_fields_are_no_fields_of_the_head() -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Trailer: Set-Cookie\r\n"
        b"Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nTE: trailers\r\nX-Kept: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nSet-Cookie: session=stolen\r\n\r\n"
    )
    result = either_way(raw)
    assert (result.headers, result.body) == ([(b"X-Kept", b"2")], b"ok")


def test_a_head_at_the_limit_passes_and_one_byte_more_is_too_large() -> None:
    head = OK + b"Content-Length: 0\r\nX: %b\r\n\r\n"
    size = 1000
    fits = head % (b"x" * (size - len(head) + 2))
    limits = Limits(max_head=size)
    assert either_way(fits, limits=limits).status == 200
    over = either_way(fits.replace(b"X: ", b"X: x"), limits=limits)
    assert over.error == (Kind.TOO_BIG, "http_response_header_section_size")


def test_the_maximum_of_fields_passes_and_one_more_is_too_large() -> None:
    def raw(count: int) -> bytes:
        return OK + b"X: 1\r\n" * (count - 1) + b"Content-Length: 0\r\n\r\n"

    assert either_way(raw(100)).status == 200
    assert either_way(raw(101)).error == (Kind.TOO_BIG, "http_response_header_section_size")


def test_an_endless_head_is_stopped_at_the_limit() -> None:
    reader = ResponseReader("GET", Limits(max_head=1000))
    reader.feed(OK + b"X: ")
    fed = 0
    with pytest.raises(MessageTooLargeError):
        for _ in range(1000):
            reader.feed(b"x" * 10)
            fed += 10
    assert fed < 1000


def test_trailers_are_bounded_in_bytes_and_in_number() -> None:
    many = CHUNKED + b"0\r\n" + b"X: 1\r\n" * 101 + b"\r\n"
    assert either_way(many).error == (Kind.TOO_BIG, "http_response_trailer_section_size")
    large = CHUNKED + b"0\r\nX: " + b"x" * 2000 + b"\r\n\r\n"
    assert either_way(large, limits=Limits(max_head=1000)).error == (
        Kind.TOO_BIG,
        "http_response_trailer_section_size",
    )


def test_interim_responses_are_bounded_in_number() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    last = OK + b"Content-Length: 2\r\n\r\nok"
    assert read(interim * INFORMATIONAL_MAX + last).body == b"ok"
    assert read(interim * (INFORMATIONAL_MAX + 1) + last).error == (Kind.MALFORMED, "http_protocol_error")


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_interim_responses_are_given_out_in_order_with_their_end_to_end_fields(piece: int) -> None:
    got: list[tuple[int, list[bytes]]] = []
    reader = ResponseReader(
        "GET", Limits(), lambda status, fields: got.append((status, [name for _, name, _ in fields]))
    )
    raw = (
        b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\nConnection: X-One\r\nX-One: 1\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX-Two: 2\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok"
    )
    for start in range(0, len(raw), piece):
        reader.feed(raw[start : start + piece])
    assert got == [(100, []), (103, [b"link", b"x-two"])]
    assert reader.ended


def trailers_of(raw: bytes, piece: int) -> list[tuple[bytes, bytes]]:
    reader = ResponseReader("GET", Limits())
    for start in range(0, len(raw), piece):
        assert not reader.trailers or reader.ended
        reader.feed(raw[start : start + piece])
    return [(name, value) for name, _, value in reader.trailers]


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_trailers_are_given_out_at_the_end_without_fields_of_framing_and_connection(piece: int) -> None:
    section = (
        b"X-Sum: \t12 \r\nContent-Length: 3\r\nconnection: x\r\nTransfer-Encoding: y\r\nproxy-x: 1\r\nX-Sum:\r\n\r\n"
    )
    assert trailers_of(CHUNKED + b"2\r\nok\r\n0\r\n" + section, piece) == [(b"X-Sum", b"12"), (b"X-Sum", b"")]
    assert trailers_of(CHUNKED + b"0\r\n\r\n", piece) == []


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n"


@pytest.mark.parametrize("piece", [1, 1000])
def test_the_bytes_behind_a_requested_101_are_not_read_as_a_message(piece: int) -> None:
    reader = ResponseReader("GET", Limits(), upgrade=b"websocket")
    raw = SWITCH + b"Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\nHTTP/1.1 no head\x00"
    got = b""
    for start in range(0, len(raw), piece):
        reader.feed(raw[start : start + piece])
        got += reader.take()
    assert got == b"HTTP/1.1 no head\x00"
    assert reader.head is not None
    assert (reader.head.status, reader.head.keep_alive, reader.ended, reader.excess) == (101, False, False, False)


@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: upgrade\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_a_101_that_does_not_fit_the_request_is_malformed(fields: bytes) -> None:
    for upgrade in (b"websocket", None):
        reader = ResponseReader("GET", Limits(), upgrade=upgrade)
        with pytest.raises(MessageError):
            reader.feed(SWITCH + fields + b"\r\n")


class _Llhttp:
    """Decode a chunked body with llhttp, for comparison."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


_CHUNK = st.one_of(
    st.binary(min_size=1, max_size=20).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    st.sampled_from(
        [b"2\r\nok\r\n", b"0\r\n", b"\r\n", b"0", b"\n", b"\r", b"5;a=b\r\nhello\r\n", b"X: y\r\n", b"g", b" "]
    ),
)


@given(st.lists(_CHUNK, max_size=8))
def test_llhttp_accepts_each_accepted_chunked_body_with_the_same_result(chunks: list[bytes]) -> None:
    raw = CHUNKED + b"".join(chunks) + b"0\r\n\r\n"
    ours = read(raw, eof=False)
    assert read(raw, eof=False, piece=1) == ours
    if ours.error is not None or not ours.ended or ours.excess:
        return
    judge = _Llhttp()
    httptools.HttpResponseParser(judge).feed_data(raw)
    assert (judge.complete, judge.body) == (True, ours.body)


@given(st.binary(max_size=200), st.integers(1, 9))
def test_garbage_raises_only_message_errors_for_any_pieces(garbage: bytes, piece: int) -> None:
    for prefix in (b"", b"HTTP/1.1 ", OK, CHUNKED):
        assert read(prefix + garbage, piece=piece) == read(prefix + garbage)
