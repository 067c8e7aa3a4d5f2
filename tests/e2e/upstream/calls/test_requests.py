"""The bytes of the request of a call, and whether the call needs a task."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from tests.support.composition.over_sockets import ONE, Case, observe
from tests.support.upstream.raw_server import Peer
from umbel import __version__
from umbel.core.call import block_of
from umbel.core.failure_kinds import Kind
from umbel.core.model import Inputs
from umbel.upstream.pool import request_head

SECRET = "Bearer s3cr3t-of-one-user"
INPUTS = Inputs(
    path={"id": "7 ü/?"},
    query={"limit": 5, "none": None},
    headers={
        "authorization": SECRET,
        "accept-language": "de;q=1, \xfc",
        "accept-encoding": "br",
        "traceparent": "00-" + "9" * 32 + "-" + "8" * 16 + "-01",
        "tracestate": "them=1",
        "x-envoy-expected-rq-timeout-ms": "12",
        "x-tenant": "t",
        "user-agent": "client/1",
    },
    body={"k": [1, "ü"]},
    raw_query=b"q=a+b&q=%C3%BC&other=1&q&%71=a,b:c/d*",
    cookies={"sid": "c00kie", "b": "2"},
    raw_body=b'{"k":1}',
    content_type="application/json",
    request_id="r-1",
    forwarded=block_of([("Via", "1.1 umbel")]),
    forwarded_for=block_of([("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")]),
)
ROUTE = {"query": {"limit": {"type": "int"}, "none": {}}, "body": "json"}
GATEWAY = {
    b"host": b"H",
    b"accept": b"application/json",
    b"accept-encoding": b"gzip",
    b"user-agent": f"umbel/{__version__}".encode(),
    b"x-request-id": b"r-1",
    b"via": b"1.1 umbel",
    b"x-forwarded-for": b"192.0.2.1",
    b"x-forwarded-proto": b"https",
    b"traceparent": b"00-" + b"0" * 31 + b"1-S-00",
    b"x-envoy-expected-rq-timeout-ms": b"N",
}
JSON = {b"content-type": b"application/json"}

# Call, request line up to the version (None: that of GET /a), fields besides the gateway's, body.
CALLS: dict[str, tuple[dict[str, Any], bytes, dict[bytes, bytes], bytes]] = {
    "nothing": ({}, b"", {}, b""),
    "template": ({"path": "/x/{id}{?limit,none}"}, b"GET /x/7%20%C3%BC%2F%3F?limit=5", {}, b""),
    "literal query": ({"path": "/x?a=1&b=%20"}, b"GET /x?a=1&b=%20", {}, b""),
    "params": (
        {"params": {"page-size": "query.limit", "list": "body.k"}},
        b"GET /a?page-size=5&list=1&list=%C3%BC",
        {},
        b"",
    ),
    "query": ({"forward_query": ["q"]}, b"GET /a?q=a+b&q=%C3%BC&q&%71=a,b:c/d*", {}, b""),
    "whole query": ({"forward_query": ["*"]}, b"GET /a?q=a+b&q=%C3%BC&other=1&q&%71=a,b:c/d*", {}, b""),
    "cookies": ({"forward_cookies": ["sid", "missing"]}, b"", {b"cookie": b"sid=c00kie"}, b""),
    "header": (
        {"forward_headers": ["x-tenant", "accept-language", "missing"]},
        b"",
        {b"x-tenant": b"t", b"accept-language": b"de;q=1, \xfc"},
        b"",
    ),
    "the client's User-Agent": ({"forward_headers": ["user-agent"]}, b"", {b"user-agent": b"client/1"}, b""),
    "own User-Agent": ({"headers": {"User-Agent": "own/{query.limit}"}}, b"", {b"user-agent": b"own/5"}, b""),
    "secret": ({"forward_headers": ["authorization"]}, b"", {b"authorization": SECRET.encode()}, b""),
    "own header": (
        {"headers": {"X-Of": "{seg}", "accept": "text/plain"}, "with": {"seg": "'plain'"}},
        b"",
        {b"x-of": b"plain", b"accept": b"text/plain"},
        b"",
    ),
    "own fixed secret": ({"headers": {"authorization": SECRET}}, b"", {b"authorization": SECRET.encode()}, b""),
    "PUT": ({"method": "PUT", "json": "body"}, b"PUT /a", JSON, '{"k":[1,"ü"]}'.encode()),
    "POST": ({"method": "POST", "json": "body"}, b"POST /a", JSON, '{"k":[1,"ü"]}'.encode()),
    "POST with a key": (
        {"method": "POST", "json": "body", "headers": {"Idempotency-Key": "k"}},
        b"POST /a",
        {**JSON, b"idempotency-key": b"k"},
        '{"k":[1,"ü"]}'.encode(),
    ),
    "PUT of nothing": ({"method": "PUT"}, b"PUT /a", {}, b""),
    "PUT form": (
        {"method": "PUT", "form": {"a": "query.limit", "b": "body.k"}},
        b"PUT /a",
        {b"content-type": b"application/x-www-form-urlencoded"},
        b"a=5&b=1&b=%C3%BC",
    ),
    "PATCH": ({"method": "PATCH", "forward_body": True}, b"PATCH /a", JSON, b'{"k":1}'),
    "DELETE with a body": ({"method": "DELETE", "forward_body": True}, b"DELETE /a", JSON, b'{"k":1}'),
    "the gateway's fields": ({"headers": {"via": "1.0 me", "x-request-id": "mine"}}, b"", {}, b""),
    "tracestate": ({"forward_headers": ["tracestate"]}, b"", {b"tracestate": b"them=1"}, b""),
    "a timeout": ({"timeout": "3s"}, b"", {}, b""),
    "another coding": ({"headers": {"accept-encoding": "identity"}}, b"", {}, b""),
    "the client's coding": ({"forward_headers": ["accept-encoding"]}, b"", {}, b""),
    "another traceparent": ({"headers": {"traceparent": "00-x"}}, b"", {}, b""),
    "the client's traceparent": ({"forward_headers": ["traceparent"]}, b"", {}, b""),
    "the client's deadline": ({"forward_headers": ["x-envoy-expected-rq-timeout-ms"]}, b"", {}, b""),
    "expect": ({"headers": {"expect": "100-continue"}}, b"", {}, b""),
    "own retry": ({"retry": {"attempts": 2}}, b"", {}, b""),
    "own hedge": ({"hedge": {"after": "1s"}}, b"", {}, b""),
}


def case(call: dict[str, Any], **more: Any) -> Case:
    return Case([ONE], calls={"a": call}, route=ROUTE, inputs=INPUTS, times=2, **more)


def parsed(request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Request line, fields (each once) and body."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *lines = head.split(b"\r\n")
    fields = [field.split(b": ", 1) for field in lines]
    made = {name.lower(): value for name, value in fields}
    assert len(made) == len(fields)
    return line, made, body


@pytest.mark.parametrize(("call", "line", "fields", "body"), CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("alone", [False, True], ids=["forwarded", "with headers"])
async def test_a_request_has_the_fields_of_call_and_gateway_and_needs_no_task(
    call: dict[str, Any], line: bytes, fields: dict[bytes, bytes], body: bytes, alone: bool
) -> None:
    seen = await observe(case(call, upstream={"headers": {"x-key": "k"}, "forwarded": False} if alone else {}))
    expected = {**GATEWAY, **({b"x-key": b"k"} if alone else {}), **fields}
    if alone:
        del expected[b"x-forwarded-for"], expected[b"x-forwarded-proto"]
    for request in seen.requests:
        got_line, got, got_body = parsed(request)
        assert got_line == (line or b"GET /a") + b" HTTP/1.1"
        length = got.pop(b"content-length", None)
        assert got == expected
        assert got_body == body
        assert length == (b"%d" % len(body) if body or line[:1] == b"P" else None)
    assert len(seen.requests) == 2
    assert seen.tasks == 1, "only the warming request needed a connection"
    remembered = repr(request_head._known.entries)
    assert SECRET not in remembered
    assert "c00kie" not in remembered


@pytest.mark.parametrize(("size", "tasks"), [(14_000, 0), (16_500, 1), (100_000, 1)])
async def test_a_large_request_is_sent_by_a_task(size: int, tasks: int) -> None:
    inputs = msgspec.structs.replace(INPUTS, body="x" * size)
    seen = await observe(Case(calls={"a": {"method": "PUT", "json": "body"}}, route=ROUTE, inputs=inputs))
    assert seen.tasks == 1 + tasks
    assert parsed(seen.requests[0])[2] == b'"%b"' % (b"x" * size)


async def test_a_deadline_header_has_the_name_that_is_configured_or_is_not_sent() -> None:
    for header in ("x-left", False):
        seen = await observe(case({}, upstream={"deadline_header": header}, deadline=1_000_000.0))
        _, fields, _ = parsed(seen.requests[0])
        assert fields.get(b"x-left") == (b"N" if header else None)
        assert b"x-envoy-expected-rq-timeout-ms" not in fields


async def test_the_tracestate_of_the_inbound_request_is_forwarded() -> None:
    seen = await observe(case({}, trace_state="a=1"))
    _, fields, _ = parsed(seen.requests[0])
    assert fields == {**GATEWAY, b"tracestate": b"a=1"}


async def test_a_field_that_http_cannot_carry_is_left_out() -> None:
    inputs = Inputs(path={"id": "7"}, headers={"x-tenant": "a\nb", "x-b": "1"})
    seen = await observe(Case([ONE], calls={"a": {"forward_headers": ["x-tenant", "x-b"]}}, inputs=inputs))
    assert seen.ends == [{"a": {"one": 1}}]
    (request,) = seen.requests
    fields = parsed(request)[1]
    assert (fields.get(b"x-tenant"), fields[b"x-b"]) == (None, b"1")


async def test_a_kept_connection_to_a_unix_socket_needs_no_task(tmp_path: Path) -> None:
    seen = await observe(Case(times=2, uds=str(tmp_path / "u.sock")))
    assert (seen.ends, seen.tasks, seen.kept) == ([{"a": {"one": 1}}] * 2, 1, 1)


async def test_over_tls_a_kept_connection_needs_no_task(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    seen = await observe(Case(times=2, tls=(server, {"ca": str(tmp_path / "ca.pem")})))
    assert (seen.ends, seen.tasks, seen.kept) == ([{"a": {"one": 1}}] * 2, 1, 1)


async def test_without_a_kept_connection_a_call_needs_a_task_to_connect() -> None:
    seen = await observe(Case(warm=0, times=3))
    assert (seen.tasks, seen.statistics.pool.opened, seen.kept) == (1, 1, 1)


async def test_a_request_without_a_response_leaves_nothing() -> None:
    async def unread(peer: Peer) -> bool:
        await peer.closed()
        return False

    seen = await observe(Case([unread], deadline=0.05))
    assert (seen.ends, seen.kept) == ([{"a": Kind.TIMEOUT}], 0)
