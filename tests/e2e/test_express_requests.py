"""The express way is the ordinary way, only cheaper: what goes out, byte by byte, and what takes which way."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.bothways import ONE, Case, both_ways
from tests.support.rawserver import Peer
from umbel.model import Inputs
from umbel.upstream import outgoing

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
    },
    body={"k": [1, "ü"]},
    raw_query=[("q", "a b"), ("q", "ü"), ("other", "1")],
    cookies={"sid": "c00kie", "b": "2"},
    raw_body=b'{"k":1}',
    content_type="application/json",
    forwarded=(("X-Request-Id", "r-1"), ("Via", "1.1 umbel")),
    forwarded_for=(("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-Proto", "https")),
)
ROUTE = {"query": {"limit": {"type": "int"}, "none": {}}, "body": "json"}

AIR: dict[str, dict[str, Any]] = {
    "nothing": {},
    "template": {"path": "/x/{id}{?limit,none}"},
    "literal query": {"path": "/x?a=1&b=%20"},
    "params": {"params": {"page-size": "query.limit", "list": "body.k"}},
    "query": {"forward_query": ["q"]},
    "cookies": {"forward_cookies": ["sid", "missing"]},
    "header": {"forward_headers": ["x-tenant", "accept-language", "missing"]},
    "secret": {"forward_headers": ["authorization"]},
    "own header": {"headers": {"X-Of": "{seg}", "accept": "text/plain"}, "with": {"seg": "'plain'"}},
    "own fixed secret": {"headers": {"authorization": SECRET}},
    "PUT": {"method": "PUT", "json": "body"},
    "PUT of nothing": {"method": "PUT"},
    "PUT form": {"method": "PUT", "form": {"a": "query.limit", "b": "body.k"}},
    "DELETE with a body": {"method": "DELETE", "forward_body": True},
    "its gateway fields": {"headers": {"via": "1.0 me", "x-request-id": "mine"}},
    "tracestate": {"forward_headers": ["tracestate"]},
    "a timeout": {"timeout": "3s"},
}
ORDINARY: dict[str, dict[str, Any]] = {
    "POST": {"method": "POST", "json": "body"},
    "POST with a key": {"method": "POST", "json": "body", "headers": {"Idempotency-Key": "k"}},
    "PATCH": {"method": "PATCH", "forward_body": True},
    "another coding": {"headers": {"accept-encoding": "identity"}},
    "the client's coding": {"forward_headers": ["accept-encoding"]},
    "another traceparent": {"headers": {"traceparent": "00-x"}},
    "the client's traceparent": {"forward_headers": ["traceparent"]},
    "the client's deadline": {"forward_headers": ["x-envoy-expected-rq-timeout-ms"]},
    "expect": {"headers": {"expect": "100-continue"}},
    "own retry": {"retry": {"attempts": 2}},
    "own hedge": {"hedge": {"after": "1s"}},
}


def case(call: dict[str, Any], **more: Any) -> Case:
    return Case([ONE], calls={"a": call}, route=ROUTE, inputs=INPUTS, times=2, **more)


@pytest.mark.parametrize("call", AIR.values(), ids=AIR.keys())
@pytest.mark.parametrize("upstream", [{}, {"headers": {"x-key": "k"}, "forwarded": False}], ids=["", "with headers"])
async def test_the_same_bytes_are_sent_without_a_task(call: dict[str, Any], upstream: dict[str, Any]) -> None:
    seen = await both_ways(case(call, upstream=upstream))
    assert seen.way is not None
    assert (seen.way.in_air, len(seen.requests)) == (2, 2)
    remembered = repr(outgoing._known)
    assert SECRET not in remembered
    assert "c00kie" not in remembered


@pytest.mark.parametrize("call", ORDINARY.values(), ids=ORDINARY.keys())
async def test_what_is_not_plain_goes_the_ordinary_way(call: dict[str, Any]) -> None:
    seen = await both_ways(case(call))
    assert seen.way is None or seen.way.in_air == 0


@pytest.mark.parametrize(("size", "in_air"), [(14_000, 1), (16_000, 0), (100_000, 0)])
async def test_a_body_is_flown_if_it_is_sent_at_once(size: int, in_air: int) -> None:
    inputs = INPUTS._replace(body="x" * size)
    seen = await both_ways(Case(calls={"a": {"method": "PUT", "json": "body"}}, route=ROUTE, inputs=inputs))
    assert seen.way is not None
    assert seen.way.in_air == in_air


async def test_a_deadline_header_of_another_name_or_none_is_sent_the_same() -> None:
    for header in ("x-left", False):
        await both_ways(case({}, upstream={"deadline_header": header}, deadline=1_000_000.0))


async def test_with_a_tracestate_every_call_goes_the_ordinary_way() -> None:
    seen = await both_ways(case({}, trace_state="a=1"))
    assert seen.way is not None
    assert seen.way.in_air == 0


async def test_a_field_that_no_line_can_hold_fails_the_same_either_way() -> None:
    inputs = Inputs(path={"id": "7"}, headers={"x-tenant": "a\nb"})
    await both_ways(Case(calls={"a": {"forward_headers": ["x-tenant"]}}, inputs=inputs))


async def test_a_unix_socket_is_flown_over_like_any_other(tmp_path: Path) -> None:
    seen = await both_ways(Case(times=2, uds=str(tmp_path / "u.sock")))
    assert seen.way is not None
    assert seen.way.in_air == 2


async def test_over_tls_a_kept_connection_needs_no_task(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    seen = await both_ways(Case(times=2, tls=(server, {"ca": str(tmp_path / "ca.pem")})))
    assert seen.way is not None
    assert (seen.way.in_air, seen.way.carried) == (2, 0)
    assert seen.kept == 1


async def test_without_a_kept_connection_a_call_is_carried() -> None:
    seen = await both_ways(Case(warm=0, times=3))
    assert seen.way is not None
    assert (seen.way.carried, seen.way.in_air) == (1, 2)


async def test_a_request_that_the_peer_never_reads_leaves_nothing() -> None:
    async def unread(peer: Peer) -> bool:
        await peer.closed()
        return False

    seen = await both_ways(Case([unread], deadline=0.05))
    assert seen.kept == 0
