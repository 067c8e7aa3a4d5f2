"""Request encoding: request line, fields, framing, and what is remembered of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from msgspec import structs

from umbel.core.call import FieldBlock, PreparedRequest
from umbel.core.failure_kinds import Kind
from umbel.core.http.header_field import ACCEPT_GZIP, Field
from umbel.net.bounded_cache import BoundedCache
from umbel.upstream import Client, Pool
from umbel.upstream.client import Policies
from umbel.upstream.errors import BadRequest
from umbel.upstream.pool.request_head import (
    encode_call,
    encode_httpx_request,
    encode_plain_call,
    is_idempotent,
    remember_beginning,
)


def request(method: str = "GET", url: str = "http://host:8080/a?b=c", **options) -> httpx.Request:
    return httpx.Request(method, url, **options)


def head(value: httpx.Request) -> list[bytes]:
    return encode_httpx_request(value).head.split(b"\r\n")[:-2]


async def pieces() -> AsyncIterator[bytes]:
    yield b"x"


def test_a_request_without_fields_is_its_request_line_and_host() -> None:
    assert head(request()) == [b"GET /a?b=c HTTP/1.1", b"Host: host:8080"]


def test_the_target_extension_is_sent_unchanged() -> None:
    target = b"/users/%2F42?x=1&x=2"
    assert head(request(extensions={"target": target}))[0] == b"GET " + target + b" HTTP/1.1"


def test_a_request_without_a_host_field_gets_the_urls_host() -> None:
    bare = httpx.Request("GET", "http://x:81/", stream=httpx.ByteStream(b""))
    assert head(bare)[1] == b"Host: x:81"


@pytest.mark.parametrize(
    "target", [b"a", b"/a b", b"/a\r\nX: y", b"/a#b", b"/\xff", b"/\x00", b"http://x/", b"*", b"/\t"]
)
def test_an_invalid_target_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        encode_httpx_request(request(extensions={"target": target}))
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.BAD_REQUEST, "http_request_error")


def test_the_asterisk_is_a_target_of_options_only() -> None:
    assert head(request("OPTIONS", extensions={"target": b"*"}))[0] == b"OPTIONS * HTTP/1.1"


@pytest.mark.parametrize("method", ["G T", "GET\r\nX:", "", "CONNECT", "GÉT", "GET/1"])
def test_an_invalid_method_is_refused(method: str) -> None:
    with pytest.raises(BadRequest):
        encode_httpx_request(request(method))


@pytest.mark.parametrize(
    "field",
    [
        (b"X-A", b"a\r\nX-B: c"),
        (b"X-A", b"a\nb"),
        (b"X-A", b"a\rb"),
        (b"X-A", b"a\0b"),
        (b"X-A", b"a\x1bb"),
        (b"X-A", b"a\x7f"),
        (b"X A", b"a"),
        (b"X-A:", b"a"),
        (b"X-A\r\n", b"a"),
        (b"", b"a"),
        (b"X-\xe9", b"a"),
    ],
)
def test_a_field_that_would_break_the_head_is_refused_and_its_value_is_not_shown(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(BadRequest) as caught:
        encode_httpx_request(request(headers=[(b"Host", b"x"), field]))
    assert "X-B" not in str(caught.value)


def test_two_host_fields_are_refused() -> None:
    with pytest.raises(BadRequest):
        encode_httpx_request(request(headers=[(b"Host", b"a"), (b"Host", b"b")]))


def test_fields_about_the_connection_are_not_copied() -> None:
    fields = [
        (b"Host", b"h"),
        (b"Connection", b"keep-alive, X-Hop"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"5"),
        (b"TE", b"trailers"),
        (b"Trailer", b"X"),
        (b"Upgrade", b"h2c"),
        (b"Expect", b"100-continue"),
        (b"Proxy-Authorization", b"secret"),
        (b"Proxy-Connection", b"keep-alive"),
        (b"X-End", b"2"),
    ]
    assert head(request(headers=fields)) == [b"GET /a?b=c HTTP/1.1", b"Host: h", b"X-End: 2"]


def test_close_is_sent_and_kept() -> None:
    value = request(headers={"connection": "Close"})
    assert b"Connection: close" in head(value)
    assert encode_httpx_request(value).close
    assert not encode_httpx_request(request(headers={"connection": "x-close"})).close


@pytest.mark.parametrize(
    ("method", "content", "field"),
    [
        ("POST", b"abc", b"Content-Length: 3"),
        ("POST", b"", b"Content-Length: 0"),
        ("PUT", None, b"Content-Length: 0"),
        ("PATCH", None, b"Content-Length: 0"),
        ("DELETE", b"abc", b"Content-Length: 3"),
        ("GET", b"abc", b"Content-Length: 3"),
        ("GET", None, None),
        ("DELETE", None, None),
    ],
)
def test_a_body_in_memory_is_framed_by_its_length(method: str, content: bytes | None, field: bytes | None) -> None:
    value = request(method, content=content)
    framing = [line for line in head(value) if line.lower().startswith((b"content-length", b"transfer-encoding"))]
    assert framing == ([field] if field else [])
    assert encode_httpx_request(value).body == (content or b"")


def test_a_stream_is_chunked_or_framed_by_its_content_length() -> None:
    chunked = encode_httpx_request(request("POST", content=pieces()))
    assert chunked.head.endswith(b"Transfer-Encoding: chunked\r\n\r\n")
    assert (chunked.length, chunked.stream is not None) == (None, True)
    sized = encode_httpx_request(request("POST", content=pieces(), headers={"content-length": "7"}))
    assert b"Content-Length: 7\r\n" in sized.head
    assert b"chunked" not in sized.head
    assert sized.length == 7


@pytest.mark.parametrize("said", ["4", "-3", "+3", "3,3", "0x3", "", "³"])
def test_a_content_length_that_differs_from_the_body_is_refused(said: str) -> None:
    with pytest.raises(BadRequest):
        encode_httpx_request(request("POST", content=b"abc", headers=[(b"Content-Length", said.encode())]))


def test_a_content_length_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest):
        encode_httpx_request(
            request("POST", content=b"abc", headers=[("Content-Length", "3"), ("Content-Length", "3")])
        )


def test_content_length_with_transfer_encoding_is_refused_for_a_stream() -> None:
    fields = {"content-length": "1", "transfer-encoding": "chunked"}
    with pytest.raises(BadRequest):
        encode_httpx_request(request("POST", content=pieces(), headers=fields))


def test_a_synchronous_stream_is_refused() -> None:
    with pytest.raises(BadRequest):
        encode_httpx_request(request("POST", content=iter([b"x"])))


@pytest.mark.parametrize(
    ("method", "options", "replayable"),
    [
        ("GET", {}, True),
        ("HEAD", {}, True),
        ("OPTIONS", {}, True),
        ("PUT", {"content": b"x"}, True),
        ("DELETE", {}, True),
        ("POST", {"content": b"x"}, False),
        ("PATCH", {"content": b"x"}, False),
        ("POST", {"content": b"x", "headers": {"idempotency-key": "1"}}, True),
    ],
)
def test_only_idempotent_requests_are_replayable(method: str, options: dict, replayable: bool) -> None:
    assert encode_httpx_request(request(method, **options)).replayable is replayable


def test_a_stream_is_never_replayable() -> None:
    assert not encode_httpx_request(request("PUT", content=pieces())).replayable


def test_a_target_that_is_not_bytes_is_refused() -> None:
    with pytest.raises(BadRequest, match="not bytes"):
        encode_httpx_request(request(extensions={"target": "/x"}))


# Requests of calls

TRACE = (b"traceparent", b"traceparent", b"00-1")
NEVER = (b"traceparent:",)


def field(name: bytes, value: bytes) -> Field:
    return name, name.lower(), value


def prepared(
    *fields: Field, method: str = "GET", target: bytes = b"/t", content: bytes | None = None
) -> PreparedRequest:
    return PreparedRequest(method, target, (*fields, ACCEPT_GZIP), content, (((b"via", b"via", b"1.1 umbel"),),))


def plain(call: PreparedRequest) -> bytes | None:
    return encode_plain_call(call, b"/base", b"host:81", b"traceparent: 00-1\r\n", NEVER)


def test_a_call_goes_to_its_replicas_host_and_base_and_asks_for_gzip() -> None:
    call = prepared((b"x-a", b"x-a", b"1"), method="POST", content=b"body")
    sent = (
        b"POST /base/t HTTP/1.1\r\nHost: host:81\r\nx-a: 1\r\naccept-encoding: gzip\r\nvia: 1.1 umbel\r\n"
        b"traceparent: 00-1\r\nContent-Length: 4\r\n\r\nbody"
    )
    assert plain(call) == sent
    outgoing = encode_call(call, b"/base", b"host:81", [TRACE])
    assert outgoing.head + outgoing.body == sent


@pytest.mark.parametrize(
    "call",
    [
        *(prepared(field(name, b"x")) for name in (b"connection", b"te", b"host", b"proxy-x", b"traceparent")),
        prepared(field(b"TraceParent", b"x")),
        prepared(field(b"accept-encoding", b"br")),
        prepared(field(b"Accept-Encoding", b"br")),
        PreparedRequest("GET", b"/t", (field(b"x", b"accept-encoding: gzip"),)),
        prepared(method="PROPFIND"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [tuple, list])
def test_fields_that_a_call_must_not_set_are_replaced(call: PreparedRequest, kind: type) -> None:
    call = structs.replace(call, headers=kind(call.headers))
    assert plain(call) is None
    lines = encode_call(call, b"/base", b"host:81", [TRACE]).head.lower().split(b"\r\n")
    for name, value in ((b"host", b"host:81"), (b"accept-encoding", b"gzip"), (b"traceparent", b"00-1")):
        assert [line for line in lines if line.startswith(name + b":")] == [name + b": " + value]
    assert not any(line.startswith((b"connection:", b"te:", b"proxy-")) for line in lines)


def test_an_idempotency_key_makes_any_method_idempotent() -> None:
    assert is_idempotent(prepared(method="PUT"))
    assert not is_idempotent(prepared(method="POST"))
    assert is_idempotent(prepared(field(b"Idempotency-Key", b"1"), method="POST"))


# What is remembered on blocks of fields.

LEFT, RIGHT = (b"traceparent:", b"x-left:"), (b"traceparent:", b"x-right:")
SAYS_LEFT, SAYS_RIGHT = (b"x-left", b"x-left", b"1"), (b"x-right", b"x-right", b"1")


@pytest.mark.parametrize(
    "headers",
    [
        (ACCEPT_GZIP,),
        (SAYS_LEFT, ACCEPT_GZIP),
        (SAYS_RIGHT, ACCEPT_GZIP),
        (),
        (ACCEPT_GZIP, ACCEPT_GZIP),
        ((b"X-A", b"x-a", b"1"), ACCEPT_GZIP),
    ],
)
@pytest.mark.parametrize("block", [(), (SAYS_LEFT,), (SAYS_RIGHT,), (ACCEPT_GZIP,), ((b"host", b"host", b"h"),)])
def test_lines_remembered_in_a_block_are_not_used_for_other_prefixes(
    headers: tuple[Field, ...], block: tuple[Field, ...]
) -> None:
    remembered = PreparedRequest("GET", b"/", FieldBlock(headers), None, (FieldBlock(block),))
    for never in (LEFT, RIGHT, LEFT, LEFT, RIGHT):
        anew = PreparedRequest("GET", b"/", headers, None, (block,))
        expected = encode_plain_call(anew, b"", b"h", b"", never)
        assert encode_plain_call(remembered, b"", b"h", b"", never) == expected


def test_upstreams_with_the_same_deadline_header_share_remembered_lines() -> None:
    one, other = (Client(name, ["http://h"], Policies(), Pool(max_connections=None)) for name in "ab")
    assert one.attempt_prefixes is other.attempt_prefixes


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_remembered_beginning_with_the_other_lines_is_the_plain_request(method: str) -> None:
    beginnings: BoundedCache[object, bytes] = BoundedCache(8)
    call = prepared(field(b"x-a", b"1"), method=method)
    remember_beginning(beginnings, "one", call, b"/base", b"host:81", NEVER)
    remember_beginning(beginnings, "other", call, b"", b"h", NEVER)
    rest = b"via: 1.1 umbel\r\ntraceparent: 00-1\r\n\r\n"
    assert beginnings.entries["one"] + rest == plain(call)
    assert beginnings.entries["other"] + rest == encode_plain_call(call, b"", b"h", b"traceparent: 00-1\r\n", NEVER)


@pytest.mark.parametrize(
    "call",
    [
        prepared(method="POST"),
        prepared(method="GET", content=b"body"),
        prepared(field(b"connection", b"close")),
        prepared(field(b"traceparent", b"x")),
        prepared(field(b"x-large", b"x" * 9000)),
    ],
)
def test_no_beginning_is_remembered_if_long_with_a_length_or_not_plain(
    call: PreparedRequest,
) -> None:
    beginnings: BoundedCache[object, bytes] = BoundedCache(8)
    remember_beginning(beginnings, "one", call, b"", b"h", NEVER)
    assert not beginnings.entries
