"""Composed responses: status, fields and body as the client gets them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from tests.support.server.asgi import ask, living
from tests.unit.gateway.gateways import Function, gateway, route, says
from umbel.core.failure_kinds import Kind

MockClock = trio.testing.MockClock


async def test_a_complete_response_is_json_with_diagnostic_fields(autojump_clock: MockClock) -> None:
    app, records = gateway(route(), up=says({"a": 1}))
    async with living(app):
        answer = await ask(app, target="/r")
    assert (answer.status, answer.body) == (200, b'{"part":{"a":1}}')
    assert answer["content-type"] == "application/json"
    assert answer["umbel-completed"] == "true"
    assert answer["server-timing"].startswith("umbel;dur=")
    assert answer["vary"] == "Accept"
    assert not answer.all("proxy-status")
    assert not answer.all("x-krakend-completed")
    (record,) = records.requests
    assert (record.status, record.completed, record.kind) == (200, True, None)
    assert (record.request.route, record.request.path, record.bytes_sent) == ("/r", "/r", len(answer.body))
    assert answer["x-request-id"] == record.request.request_id


async def test_a_response_takes_one_send_for_its_head_and_one_for_its_body(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(), up=says({"a": 1}))
    async with living(app):
        assert (await ask(app, target="/r")).sends == 2


async def test_a_partial_response_is_marked_and_not_stored(autojump_clock: MockClock) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await trio.sleep(60)
        raise AssertionError

    calls = {
        "fast": {"upstream": "up", "path": "/"},
        "slow": {"upstream": "slow", "path": "/", "optional": True, "default": []},
    }
    app, records = gateway(
        route(calls=calls, deadline="500ms", krakend_compat=True),
        up=says(1, headers={"cache-control": "max-age=60"}),
        slow=slow,
    )
    async with living(app):
        began = trio.current_time()
        answer = await ask(app, target="/r")
        assert trio.current_time() - began == pytest.approx(0.5)
    assert (answer.status, answer.json) == (200, {"fast": 1, "slow": []})
    assert answer["umbel-completed"] == answer["x-krakend-completed"] == "false"
    assert answer["proxy-status"] == 'umbel;error=http_response_timeout;next-hop="slow"'
    assert answer["cache-control"] == "no-store"
    assert not answer.all("etag")
    assert records.requests[0].completed is False


async def test_a_failed_composition_is_a_problem_document_that_names_no_upstream(autojump_clock: MockClock) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("cannot connect to 10.0.0.7:5432")

    app, records = gateway(route(), up=refuse)
    async with living(app):
        answer = await ask(app, target="/r")
    assert answer.status == 502
    assert answer["content-type"] == "application/problem+json"
    assert answer["cache-control"] == "no-store"
    assert answer["umbel-completed"] == "false"
    assert answer["proxy-status"] == 'umbel;error=connection_refused;next-hop="part"'
    document = answer.json
    assert (document["status"], document["type"]) == (502, "urn:umbel:problem:connect")
    assert document["request_id"] == answer["x-request-id"]
    assert [(call["name"], call["kind"]) for call in document["calls"]] == [("part", "connect")]
    assert b"10.0.0.7" not in answer.body
    assert (records.requests[0].status, records.requests[0].kind) == (502, Kind.CONNECT)
    assert "10.0.0.7" in records.requests[0].detail


@pytest.mark.parametrize("expose", ["full", "none"])
async def test_the_gateways_own_time_is_recorded_whatever_is_exposed(expose: str, autojump_clock: MockClock) -> None:
    app, records = gateway(route(expose=expose, query=["a"]), route("/failed", expose=expose), up=says(1))

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    async with living(app):
        answers = [await ask(app, target=target) for target in ("/r", "/failed", "/plain", "/r?a=%ff")]
    composed, failed, other, refused = records.requests
    assert composed.own_ms is not None
    assert failed.own_ms is not None
    assert (other.own_ms, refused.own_ms) == (None, None)
    if expose == "full":
        assert answers[0]["server-timing"].startswith(f"umbel;dur={composed.own_ms:.1f}")


@pytest.mark.parametrize(
    ("expose", "names"),
    [
        ("full", {"umbel-completed", "x-krakend-completed", "proxy-status", "server-timing"}),
        ("completed", {"umbel-completed", "x-krakend-completed"}),
        ("none", set()),
    ],
)
async def test_expose_selects_the_diagnostic_fields_for_clients(
    expose: str, names: set[str], autojump_clock: MockClock
) -> None:
    app, _ = gateway(route(expose=expose, krakend_compat=True), up=says({}, status=500))
    async with living(app):
        answer = await ask(app, target="/r")
    diagnostics = {"umbel-completed", "x-krakend-completed", "proxy-status", "server-timing"}
    assert {name for name, _ in answer.headers} & diagnostics == names
    assert answer["x-request-id"]


async def test_a_matching_etag_gives_304_without_body(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(), up=says({"a": 1}, headers={"cache-control": "max-age=60"}))
    async with living(app):
        first = await ask(app, target="/r")
        again = await ask(app, target="/r", headers=[("if-none-match", f'"x", W/{first["etag"]}')])
        other = await ask(app, target="/r", headers=[("if-none-match", '"x"')])
    assert not first["etag"].startswith("W/")
    assert (again.status, again.body) == (304, b"")
    assert {name: again[name] for name in ("etag", "cache-control", "vary")} == {
        "etag": first["etag"],
        "cache-control": "max-age=60",
        "vary": "Accept",
    }
    assert not again.all("content-type")
    assert not again.all("content-length")
    assert other.status == 200


async def test_no_etag_without_etag_or_with_an_unsafe_method(autojump_clock: MockClock) -> None:
    app, _ = gateway(
        route("/off", answer={"etag": False}),
        route("/post", methods=["POST"]),
        route("/created", answer={"status": 201}),
        up=says(1),
    )
    async with living(app):
        assert not (await ask(app, target="/off")).all("etag")
        assert not (await ask(app, "POST", "/post")).all("etag")
        created = await ask(app, target="/created")
    assert created.status == 201
    assert not created.all("etag")


async def test_a_204_has_no_body_and_no_type(autojump_clock: MockClock) -> None:
    app, _ = gateway(route(answer={"status": 204}), up=says({"a": 1}))
    async with living(app):
        answer = await ask(app, target="/r")
    assert (answer.status, answer.body) == (204, b"")
    assert not answer.all("content-length")
    assert not answer.all("content-type")
    assert answer["umbel-completed"] == "true"


async def test_head_is_get_without_the_body(autojump_clock: MockClock) -> None:
    app, records = gateway(route(), up=says({"a": 1}))
    async with living(app):
        got, head = await ask(app, target="/r"), await ask(app, "HEAD", "/r")
    assert (head.status, head.body, head["content-length"]) == (200, b"", str(len(got.body)))
    assert head["etag"] == got["etag"]
    assert records.requests[1].bytes_sent == 0


async def test_a_passed_status_comes_with_the_upstreams_body_and_retry_after(autojump_clock: MockClock) -> None:
    def limited(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, text="slow down", headers={"retry-after": "7", "x-internal": "no"})

    calls = {"part": {"upstream": "up", "path": "/", "pass_body": True}}
    app, _ = gateway(route(calls=calls), up=limited)
    async with living(app):
        answer = await ask(app, target="/r")
    assert (answer.status, answer.body) == (429, b"slow down")
    assert answer["content-type"] == "text/plain; charset=utf-8"
    assert answer["retry-after"] == "7"
    assert answer["cache-control"] == "no-store"
    assert not answer.all("x-internal")


async def test_a_503_has_retry_after(autojump_clock: MockClock) -> None:
    from umbel.core.errors import UpstreamError

    class FullError(UpstreamError):
        kind = Kind.OVERFLOW

    def full(request: httpx.Request) -> httpx.Response:
        raise FullError("100 calls wait")

    app, _ = gateway(route(), up=full)
    async with living(app):
        answer = await ask(app, target="/r")
    assert (answer.status, answer["retry-after"]) == (503, "1")


async def test_vary_names_accept_and_what_the_plan_reads(autojump_clock: MockClock) -> None:
    calls = {
        "part": {
            "upstream": "up",
            "path": "/",
            "headers": {"x-t": "{headers.x_tenant}"},
            "forward_headers": ["accept-language"],
        }
    }
    app, _ = gateway(route(calls=calls), up=says(1))
    async with living(app):
        answer = await ask(app, target="/r")
    assert answer["vary"] == "Accept, X-Tenant, Accept-Language"


async def test_calls_have_the_fields_of_a_gateway(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    app, records = gateway(route(), up=upstream)
    async with living(app):
        await ask(app, target="/r", headers=[("x-forwarded-for", "6.6.6.6"), ("x-secret", "1"), ("via", "1.0 fred")])
    headers = upstream.asked[0].headers
    assert headers["x-request-id"] == records.requests[0].request.request_id
    assert headers["via"] == "1.0 fred, 1.1 umbel"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == "gateway.test"
    assert "x-secret" not in headers


async def test_a_request_id_needs_a_trusted_peer_and_a_trace_does_not(autojump_clock: MockClock) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    said = [("x-request-id", "edge-1"), ("traceparent", f"00-{trace}-00f067aa0ba902b7-01")]
    trusting, records = gateway(route(), server={"trusted_proxies": ["127.0.0.0/8"]}, up=says(1))
    wary, others = gateway(route(), up=says(1))
    async with living(trusting), living(wary):
        assert (await ask(trusting, target="/r", headers=said))["x-request-id"] == "edge-1"
        assert (await ask(wary, target="/r", headers=said))["x-request-id"] != "edge-1"
    assert records.requests[0].request.trace.trace_id == trace
    assert others.requests[0].request.trace.trace_id == trace, "a trace is no claim of identity"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], 2.0),
        ([("prefer", "wait=1")], 1.0),
        ([("x-envoy-upstream-rq-timeout-ms", "250")], 0.25),
        ([("prefer", "wait=60")], 2.0),
        ([("prefer", "wait=soon")], 2.0),
    ],
)
async def test_the_client_can_shorten_the_deadline_and_not_lengthen_it(
    headers: Any, expected: float, autojump_clock: MockClock
) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    app, _ = gateway(route(deadline="2s"), up=never)
    async with living(app):
        began = trio.current_time()
        answer = await ask(app, target="/r", headers=headers)
        assert trio.current_time() - began == pytest.approx(expected)
    assert answer.status == 504


async def test_typed_query_parameters_reach_the_plan(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    calls = {"part": {"upstream": "up", "path": "/x/{id}{?limit}"}}
    app, records = gateway(route("/q/<id>", calls=calls, query={"limit": {"type": "int", "default": 20}}), up=upstream)
    async with living(app):
        await ask(app, target="/q/a%20b")
        assert upstream.target == b"/x/a%20b?limit=20"
        await ask(app, target="/q/1?limit=5&limit=6&other=1")
        assert upstream.target == b"/x/1?limit=6"
        refused = await ask(app, target="/q/1?limit=many")
    assert refused.status == 400
    assert '"limit"' in refused.json["detail"]
    assert len(upstream.asked) == 2
    assert (records.requests[2].kind, records.requests[2].request.route) == (Kind.BAD_REQUEST, "/q/<id>")


async def test_a_path_value_that_json_lacks_becomes_text(autojump_clock: MockClock) -> None:
    upstream = Function(says(1))
    calls = {"part": {"upstream": "up", "path": "/x/{id}"}}
    app, _ = gateway(route("/q/<uuid:id>", calls=calls), up=upstream)
    async with living(app):
        await ask(app, target="/q/12345678-1234-5678-1234-567812345678")
    assert upstream.target == b"/x/12345678-1234-5678-1234-567812345678"
