"""Records of the start of a stream: only if it lasts, and never without its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.logs.event_factories import request_ended, request_facts
from tests.support.logs.records import Records
from tests.support.logs.sinks import MemoryLog
from tests.support.server.asgi import ask, conversation, living
from umbel.config.schema.sections import Config
from umbel.core.events import RequestEnded, RequestStarted
from umbel.gateway.app import Umbel
from umbel.logs.records.combined import record_of


class LastingRecords(Records):
    lasting_after: float | None = 1.0


def application(records: Records, **config: Any) -> Umbel:
    app = Umbel(__name__, Config.model_validate(config), recorder=records, static_folder=None)

    @app.get("/stream/<seconds>")
    async def stream(seconds: str) -> Any:
        async def parts() -> AsyncIterator[str]:
            yield "first"
            await trio.sleep(float(seconds))
            yield "last"

        return parts()

    @app.get("/slow")
    async def slow() -> str:
        await trio.sleep(5)
        return "whole"

    return app


def events(records: Records) -> list[str]:
    return [type(event).__name__ for event in records.events]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/stream/0.5", ["RequestEnded"]),
        ("/stream/3", ["RequestStarted", "RequestEnded"]),
        ("/slow", ["RequestEnded"]),
        ("/missing", ["RequestEnded"]),
    ],
)
async def test_only_a_stream_that_lasts_has_a_record_of_its_start(
    target: str, expected: list[str], autojump_clock: MockClock
) -> None:
    records = LastingRecords()
    app = application(records)
    async with living(app):
        began = trio.current_time()
        assert (await ask(app, target=target)).complete
        assert events(records) == expected
        runtime = app.gateway_context.serving.runtime
        assert runtime is not None
        assert len(runtime.timers) == 0
    started, ended = records.events[0], records.events[-1]
    assert isinstance(ended, RequestEnded)
    if isinstance(started, RequestStarted):
        assert started.at - began == pytest.approx(1.0)
        assert started.request == ended.request
        assert started.request.route == "/stream/<seconds>"


async def test_a_stream_that_its_client_leaves_has_both_records(autojump_clock: MockClock) -> None:
    records = LastingRecords()
    app = application(records)
    async with living(app):
        async with conversation(app, target="/stream/60") as client:
            await client.body(b"")
            await trio.sleep(2)
            await client.disconnect()
        assert events(records) == ["RequestStarted", "RequestEnded"]


async def test_a_stream_of_a_configured_route_has_a_record_of_its_start(autojump_clock: MockClock) -> None:
    import httpx

    async def answer(request: httpx.Request) -> httpx.Response:
        await trio.sleep(3 if request.url.path == "/slow" else 0)
        return httpx.Response(200, json={})

    records = LastingRecords()
    config = {
        "upstreams": {"up": {"urls": ["http://up"]}},
        "routes": [
            {
                "path": "/r",
                "stream": True,
                "deadline": "10s",
                "calls": {name: {"upstream": "up", "path": f"/{name}", "timeout": "9s"} for name in ("quick", "slow")},
            }
        ],
    }
    app = Umbel(
        __name__,
        Config.model_validate(config),
        recorder=records,
        transports={"up": httpx.MockTransport(answer)},
        static_folder=None,
    )
    async with living(app):
        await ask(app, target="/r", headers=[("accept", "application/x-ndjson")])
    assert [name for name in events(records) if name.startswith("Request")] == ["RequestStarted", "RequestEnded"]


async def test_a_recorder_that_takes_no_starts_gets_none(autojump_clock: MockClock) -> None:
    records = Records()
    app = application(records)
    async with living(app):
        await ask(app, target="/stream/3")
    assert events(records) == ["RequestEnded"]


async def test_the_start_is_an_access_record_without_status(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with log.open() as recorder:
        recorder.record(RequestStarted(request_facts(), 11.0, "192.0.2.1"))
        recorder.record(request_ended())
    start, end = log.access.records
    assert (start["event"], start["level"], end["event"]) == ("request.start", "info", "request.end")
    assert start["request_id"] == end["request_id"]
    assert start["http.route"] == "/dashboard/<user_id>"
    assert "http.response.status_code" not in start


async def test_a_combined_log_has_no_starts(autojump_clock: MockClock) -> None:
    log = MemoryLog()
    async with log.open(combined=True) as recorder:
        assert recorder.lasting_after is None
        recorder.record(request_ended())
    assert record_of(bytes(log.access.data).rstrip()) is not None
