from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from umbel.kinds import Kind
from umbel.upstream.errors import BadRequest
from umbel.upstream.origin import origin_of
from umbel.upstream.outgoing import prebuilt, prepare


def request(method: str = "GET", url: str = "http://host:8080/a?b=c", **options) -> httpx.Request:
    return httpx.Request(method, url, **options)


def head(value: httpx.Request) -> list[bytes]:
    return prepare(value, b"fallback").head.split(b"\r\n")[:-2]


async def pieces() -> AsyncIterator[bytes]:
    yield b"x"


def test_a_plain_request_is_its_line_and_its_host() -> None:
    assert head(request()) == [b"GET /a?b=c HTTP/1.1", b"Host: host:8080"]


def test_the_target_extension_goes_out_as_it_is() -> None:
    target = b"/users/%2F42?x=1&x=2"
    assert head(request(extensions={"target": target}))[0] == b"GET " + target + b" HTTP/1.1"


def test_the_default_host_serves_a_request_without_one() -> None:
    bare = httpx.Request("GET", "http://x/", stream=httpx.ByteStream(b""))
    assert head(bare)[1] == b"Host: fallback"


@pytest.mark.parametrize(
    "target", [b"a", b"/a b", b"/a\r\nX: y", b"/a#b", b"/\xff", b"/\x00", b"http://x/", b"*", b"/\t"]
)
def test_a_target_that_is_none_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        prepare(request(extensions={"target": target}), b"x")
    assert (caught.value.kind, caught.value.proxy_error) == (Kind.BAD_REQUEST, "http_request_error")


def test_the_asterisk_is_for_options_alone() -> None:
    assert head(request("OPTIONS", extensions={"target": b"*"}))[0] == b"OPTIONS * HTTP/1.1"


@pytest.mark.parametrize("method", ["G T", "GET\r\nX:", "", "CONNECT", "GÉT", "GET/1"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(BadRequest):
        prepare(request(method), b"x")


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
        prepare(request(headers=[(b"Host", b"x"), field]), b"x")
    assert "X-B" not in str(caught.value)


def test_two_hosts_are_refused() -> None:
    with pytest.raises(BadRequest):
        prepare(request(headers=[(b"Host", b"a"), (b"Host", b"b")]), b"x")


def test_the_fields_of_the_connection_are_ours() -> None:
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


def test_close_is_said_and_noted() -> None:
    value = request(headers={"connection": "Close"})
    assert b"Connection: close" in head(value)
    assert prepare(value, b"x").close
    assert not prepare(request(headers={"connection": "x-close"}), b"x").close


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
    assert prepare(value, b"x").body == (content or b"")


def test_a_stream_is_chunked_or_framed_by_the_length_that_it_was_given() -> None:
    chunked = prepare(request("POST", content=pieces()), b"x")
    assert chunked.head.endswith(b"Transfer-Encoding: chunked\r\n\r\n")
    assert (chunked.length, chunked.stream is not None) == (None, True)
    sized = prepare(request("POST", content=pieces(), headers={"content-length": "7"}), b"x")
    assert b"Content-Length: 7\r\n" in sized.head
    assert b"chunked" not in sized.head
    assert sized.length == 7


@pytest.mark.parametrize("said", ["4", "-3", "+3", "3,3", "0x3", "", "³"])
def test_a_length_that_is_not_the_bodys_is_refused(said: str) -> None:
    with pytest.raises(BadRequest):
        prepare(request("POST", content=b"abc", headers=[(b"Content-Length", said.encode())]), b"x")


def test_a_length_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest):
        prepare(request("POST", content=b"abc", headers=[("Content-Length", "3"), ("Content-Length", "3")]), b"x")


def test_length_and_chunked_together_are_refused_for_a_stream() -> None:
    fields = {"content-length": "1", "transfer-encoding": "chunked"}
    with pytest.raises(BadRequest):
        prepare(request("POST", content=pieces(), headers=fields), b"x")


def test_a_synchronous_stream_is_refused() -> None:
    with pytest.raises(BadRequest):
        prepare(request("POST", content=iter([b"x"])), b"x")


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
def test_only_what_may_be_repeated_is_replayable(method: str, options: dict, replayable: bool) -> None:
    assert prepare(request(method, **options), b"x").replayable is replayable


def test_a_stream_is_never_replayable() -> None:
    assert not prepare(request("PUT", content=pieces()), b"x").replayable


def test_a_request_that_is_sent_again_is_prepared_once() -> None:
    value = httpx.Request("GET", "http://a.example/x", headers={"accept": "*/*"})
    origin, outgoing = prebuilt(value)
    assert prebuilt(value) == (origin, outgoing)
    assert prebuilt(value)[1] is outgoing
    assert outgoing == prepare(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.headers.update({"accept": "text/html"}),
        lambda value: value.headers.__delitem__("accept"),
        lambda value: setattr(value, "headers", httpx.Headers({"x": "y"})),
        lambda value: setattr(value, "url", httpx.URL("http://b.example/x")),
        lambda value: setattr(value, "method", "DELETE"),
        lambda value: value.extensions.update({"target": b"/other"}),
        lambda value: setattr(value, "stream", httpx.Request("PUT", "http://a.example", content=pieces()).stream),
    ],
    ids=["field", "field gone", "headers", "url", "method", "target", "body"],
)
def test_a_request_that_was_changed_is_prepared_anew(change: Callable[[httpx.Request], None]) -> None:
    value = httpx.Request("PUT", "http://a.example/x", headers={"accept": "*/*"}, content=b"body")
    before = prebuilt(value)
    change(value)
    after = prebuilt(value)
    assert after != before
    assert after == (origin_of(value.url), prepare(value))


def test_a_target_that_is_not_bytes_is_refused() -> None:
    with pytest.raises(BadRequest, match="not bytes"):
        prepare(request(extensions={"target": "/x"}))


def test_a_request_that_can_be_sent_once_only_remembers_nothing() -> None:
    value = httpx.Request("POST", "http://a.example/x", content=pieces())
    known = dict(vars(value))
    prebuilt(value)
    assert vars(value) == known
