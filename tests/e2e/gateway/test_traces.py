"""Traces over sockets: what a collector receives, and that no collector delays a request or the end of the process."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.support.gateway.program import EVERY_CALL, Program, route, running, up
from tests.support.observe.otlp_receiver import Receiver, attributes, otlp_receiver
from tests.support.upstream.raw_server import Handler, Peer, answering, field_value, raw_server, response
from umbel.observe.traces.export import SHUTDOWN_S, SpanStatistics

JSON = b"Content-Type: application/json"
OK = response(b"1", JSON)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent at the end only, and no variable of the machine counts."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as receiver:
        yield receiver


def traces(url: str, keys: str = 'sample = "100%"') -> str:
    return f'[traces]\notlp = "{url}"\n{keys}\n'


def spans_of(program: Program) -> SpanStatistics:
    assert program.app.current_runtime is not None
    assert program.app.current_runtime.spans is not None
    return program.app.current_runtime.spans.statistics()


def by_cause(receiver: Receiver) -> dict[str, Span]:
    spans = [span for span in receiver.spans if span.kind == Span.SPAN_KIND_CLIENT]
    return {attributes(span)["umbel.cause"]: span for span in spans}


def keeping(heads: list[bytes]) -> Handler:
    """An upstream that keeps the heads of its requests."""

    async def handler(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            heads.append(request[0])
            await peer.send(OK)

    return handler


@contextmanager
def nobody() -> Iterator[str]:
    """The URL of a port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"


async def test_a_collector_receives_the_spans_of_a_request_with_the_ids_that_were_sent(
    tmp_path: Path, receiver: Receiver
) -> None:
    heads: list[bytes] = []
    async with raw_server(keeping(heads)) as server:
        text = up(server) + route(path="/r/<int:number>") + traces(receiver.url)
        async with running(tmp_path, text) as program:
            reply, _ = await program.ask("/r/7?token=hunter2", headers=[("traceparent", f"{PARENT}01")])
            assert reply.status == 200
    served, call, client = (receiver.named(name) for name in ("GET /r/<int:number>", "call part", "GET"))
    assert {span.trace_id.hex() for span in receiver.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert served.parent_span_id.hex() == "b7ad6b7169203331"
    assert (call.parent_span_id, client.parent_span_id) == (served.span_id, call.span_id)
    assert field_value(heads[0], "traceparent") == f"00-{served.trace_id.hex()}-{client.span_id.hex()}-01"
    assert attributes(served)["url.path"] == "/r/7"
    assert attributes(served)["umbel.sampled"] == "head"
    assert attributes(client)["server.port"] == int(server)
    assert served.start_time_unix_nano <= call.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= call.end_time_unix_nano <= served.end_time_unix_nano
    assert abs(served.start_time_unix_nano / 1e9 - time.time()) < 60
    assert receiver.resource["service.name"] == "umbel"
    assert b"hunter2" not in receiver.requests[0].SerializeToString()


@pytest.mark.parametrize(("flag", "share"), [("01", "0%"), ("00", "100%")])
async def test_the_clients_decision_is_sent_upstream_and_decides(
    flag: str, share: str, tmp_path: Path, receiver: Receiver
) -> None:
    heads: list[bytes] = []
    async with (
        raw_server(keeping(heads)) as server,
        running(tmp_path, up(server) + route() + traces(receiver.url, f'sample = "{share}"')) as program,
    ):
        await program.ask("/r", headers=[("traceparent", PARENT + flag)])
    assert (field_value(heads[0], "traceparent") or "")[-2:] == flag
    assert bool(receiver.spans) is (flag == "01")


@pytest.mark.parametrize("share", ["0%", "100%"])
async def test_the_gateways_own_decision_is_sent_upstream_and_decides(
    share: str, tmp_path: Path, receiver: Receiver
) -> None:
    heads: list[bytes] = []
    async with (
        raw_server(keeping(heads)) as server,
        running(tmp_path, up(server) + route() + traces(receiver.url, f'sample = "{share}"')) as program,
    ):
        await program.ask("/r")
        await program.ask("/r", headers=[("x-request-id", "a")])
    assert {(field_value(head, "traceparent") or "")[-2:] for head in heads} == {"01" if share == "100%" else "00"}
    assert len([span for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER]) == (2 if share == "100%" else 0)


@pytest.mark.parametrize(("parent", "force", "kept"), [("", False, True), ("00", False, False), ("00", True, True)])
async def test_a_failed_request_that_was_not_chosen_has_a_trace_of_the_tail(
    parent: str, force: bool, kept: bool, tmp_path: Path, receiver: Receiver
) -> None:
    async with raw_server(answering(response(b"no", status=b"500 Broken"))) as server:
        keys = f'sample = "0%"\nforce = {str(force).lower()}'
        async with running(tmp_path, up(server) + route() + traces(receiver.url, keys)) as program:
            headers = [("traceparent", PARENT + parent)] if parent else []
            assert (await program.ask("/r", headers=headers))[0].status == 502
    assert [attributes(span)["umbel.sampled"] for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER] == (
        ["tail"] if kept else []
    )
    if kept:
        assert receiver.named("GET /r").status.code == Status.STATUS_CODE_ERROR


async def test_a_hedge_and_its_cancelled_loser_are_siblings(tmp_path: Path, receiver: Receiver) -> None:
    async def upstream(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            if peer.number == 0:
                await peer.closed()  # The first attempt never gets an answer.
                return
            await peer.send(OK)

    async with raw_server(upstream) as server:
        text = up(server, 'hedge = { after = "20ms" }') + route() + traces(receiver.url)
        async with running(tmp_path, text) as program:
            assert (await program.ask("/r"))[0].status == 200
    spans = by_cause(receiver)
    lost, won = spans["first"], spans["hedge"]
    assert lost.parent_span_id == won.parent_span_id == receiver.named("call part").span_id
    assert attributes(lost)["umbel.cancelled"] == "lost-hedge"
    assert lost.status.code == Status.STATUS_CODE_UNSET
    assert attributes(won)["http.request.resend_count"] == 1
    assert attributes(won)["http.response.status_code"] == 200
    assert "umbel.cancelled" not in attributes(won)
    assert attributes(won)["umbel.critical"] is True
    assert attributes(won)["umbel.connect_ms"] > 0


async def test_retries_are_siblings_with_their_resend_count(tmp_path: Path, receiver: Receiver) -> None:
    async with raw_server(answering(response(b"no", status=b"503 Busy"), OK)) as server:
        text = up(server, 'retry = { attempts = 2, backoff = "1ms" }') + route() + traces(receiver.url)
        async with running(tmp_path, text) as program:
            assert (await program.ask("/r"))[0].status == 200
    spans = by_cause(receiver)
    assert spans["first"].parent_span_id == spans["retry"].parent_span_id
    assert attributes(spans["first"])["error.type"] == "503"
    assert "http.request.resend_count" not in attributes(spans["first"])
    assert attributes(spans["retry"])["http.request.resend_count"] == 1


async def test_a_partial_answer_at_its_deadline_has_both_events(tmp_path: Path, receiver: Receiver) -> None:
    async def upstream(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            if b"/slow" in request[0]:
                await peer.closed()
                return
            await peer.send(OK)

    late = '[routes.calls.late]\nupstream = "up"\npath = "/slow"\noptional = true\n'
    async with raw_server(upstream) as server:
        text = up(server) + route(keys='deadline = "100ms"') + late + traces(receiver.url, 'sample = "0%"')
        async with running(tmp_path, text) as program:
            assert (await program.ask("/r"))[0].status == 200
            assert program.app.current_runtime is not None
            (kept,) = program.app.current_runtime.recorder.kept.listing().requests
    served = receiver.named("GET /r")
    events = {event.name: attributes(event) for event in served.events}
    assert events == {"umbel.deadline": {"umbel.deadline_ms": 100.0}, "umbel.partial": {"umbel.missing": ["late"]}}
    assert (attributes(served)["umbel.sampled"], attributes(served)["umbel.outcome"]) == ("tail", "partial")
    cut = next(span for span in receiver.spans if "umbel.cancelled" in attributes(span))
    assert attributes(cut)["umbel.cancelled"] == "the route's deadline"
    assert (kept.bucket, kept.trace_id) == ("partial", served.trace_id.hex())


async def test_views_of_the_application_have_traces_too(tmp_path: Path, receiver: Receiver) -> None:
    def prepare(app: Any) -> None:
        @app.get("/own")
        async def own() -> str:
            return "own"

    async with (
        raw_server(answering(OK)) as server,
        running(tmp_path, up(server) + traces(receiver.url), prepare=prepare) as program,
    ):
        assert (await program.ask("/own"))[0].status == 200
    assert attributes(receiver.named("GET /own"))["http.response.status_code"] == 200


async def test_the_environment_alone_names_the_collector(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=edge,deployment.environment.name=test")
    async with (
        raw_server(answering(OK)) as server,
        running(tmp_path, up(server) + route() + '[traces]\nsample = "100%"\n') as program,
    ):
        await program.ask("/r")
    assert receiver.resource["service.name"] == "edge"
    assert receiver.resource["deployment.environment.name"] == "test"
    assert {key.lower(): value for key, value in receiver.fields[0].items()}["x-tenant"] == "shop"


async def test_proxies_of_the_environment_are_not_used(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nobody() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        async with (
            raw_server(answering(OK)) as server,
            running(tmp_path, up(server) + route() + traces(receiver.url)) as program,
        ):
            await program.ask("/r")
    assert receiver.spans


async def _asked_many(program: Program, number: int) -> float:
    """The longest time that a request took."""
    longest = 0.0
    for _ in range(number):
        began = trio.current_time()
        assert (await program.ask("/r"))[0].status == 200
        longest = max(longest, trio.current_time() - began)
    return longest


@pytest.mark.parametrize("how", ["down", "slow", "failing"])
async def test_a_bad_collector_delays_neither_requests_nor_the_end(
    how: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    if how == "slow":
        receiver.go.clear()
    receiver.status = 500
    with nobody() as url:
        text = route() + traces(url if how == "down" else receiver.url)
        async with raw_server(answering(OK)) as server, running(tmp_path, up(server) + text) as program:
            assert await _asked_many(program, 20) < 2
            if how != "down":
                await trio.to_thread.run_sync(receiver.asked.wait)
            runtime = program.app.current_runtime
            assert runtime is not None
            began = trio.current_time()
        took = trio.current_time() - began
    assert took < SHUTDOWN_S + 3
    assert runtime.spans is not None
    statistics = runtime.spans.statistics()
    assert (statistics.exported, statistics.queued) == (0, 0)
    assert statistics.dropped + statistics.failed > 50
    records = [line for line in program.lines("app") if line["event"].startswith("traces.")]
    assert records[-1]["event"] == "traces.lost"
    assert len(records) <= 2, "the warnings of the exporter are limited"
    receiver.go.set()


async def test_spans_that_do_not_fit_into_the_queue_are_dropped_as_whole_traces(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "7")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "7")
    async with (
        raw_server(answering(OK)) as server,
        running(tmp_path, up(server) + route() + traces(receiver.url)) as program,
    ):
        await _asked_many(program, 4)
        assert spans_of(program) == SpanStatistics(exported=0, failed=0, dropped=6, queued=6)
        values, _ = program.app.figures()
        assert dict(values["umbel_trace_spans_total"])[("dropped",)] == 6
    assert len(receiver.spans) == 6
    assert len({span.trace_id for span in receiver.spans}) == 2


async def test_without_traces_nothing_is_exported_and_each_trace_is_marked_as_sampled(tmp_path: Path) -> None:
    heads: list[bytes] = []
    async with raw_server(keeping(heads)) as server, running(tmp_path, up(server) + route() + EVERY_CALL) as program:
        await program.ask("/r")
        assert program.app.current_runtime is not None
        assert program.app.current_runtime.spans is None
        assert "umbel_trace_spans_total" not in program.app.figures()[0]
    assert (field_value(heads[0], "traceparent") or "").endswith("-01")
