"""The three logs of the gateway: which records each gets, once, with the ids of the request."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import trio

from tests.support.server.asgi import ask, living
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel
from umbel.gateway.operation.admin import GatewayView

ROUTE = {"path": "/r", "calls": {"part": {"upstream": "users", "path": "/", "optional": True}}}


def gateway(directory: Path, **logs: Any) -> Umbel:
    config = {
        "upstreams": {"users": {"urls": ["http://127.0.0.1:1"]}},
        "logs": {"dir": str(directory), **logs},
        "routes": [ROUTE],
    }
    return Umbel("test_logs", Config.model_validate(config))


async def lines(directory: Path, stream: str) -> list[dict[str, Any]]:
    text = await trio.Path(directory / f"{stream}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


async def test_log_records_of_a_library_have_the_ids_of_the_request(tmp_path: Path) -> None:
    app = gateway(tmp_path)

    @app.get("/plain/<int:number>")
    async def plain(number: int) -> str:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, logging.getLogger("some.library").warning, "said")
        return "fine"

    async with living(app):
        answer = await ask(app, target="/plain/3")

    [said, _] = await lines(tmp_path, "app")
    assert (said["logger"], said["msg"]) == ("some.library", "said")
    assert said["request_id"] == answer["x-request-id"]
    assert len(said["trace_id"]) == 32


async def test_an_exception_that_nobody_handled_is_recorded_once(tmp_path: Path) -> None:
    app = gateway(tmp_path)

    @app.get("/broken")
    async def broken() -> str:
        raise ValueError("the only record")

    async with living(app):
        assert (await ask(app, target="/broken")).status == 500

    crashes = [line for line in await lines(tmp_path, "app") if "the only record" in json.dumps(line)]
    assert [line["event"] for line in crashes] == ["request.crashed"]


async def test_the_last_line_counts_the_lines_of_every_stream(tmp_path: Path) -> None:
    app = gateway(tmp_path)
    async with living(app):
        for _ in range(5):
            await ask(app, target="/r")

    access, calls, everything = [await lines(tmp_path, stream) for stream in ("access", "calls", "app")]
    last = everything[-1]
    assert (len(access), len(calls)) == (5, 5)
    assert last["event"] == "log.closed"
    assert last["written"] == len(access) + len(calls) + len(everything)
    assert last["dropped"] == 0
    assert last["streams"] == {"access": {"written": 5, "dropped": 0}, "calls": {"written": 5, "dropped": 0}}


async def test_each_stream_has_its_own_level_and_sampling(tmp_path: Path) -> None:
    app = gateway(tmp_path, access={"sample": "0.0000001%"}, calls={"level": "error"})
    async with living(app):
        await ask(app, target="/missing")
        await ask(app, target="/r")

    # The record of the request is a warning, which is not sampled; the warning of the call is below the level.
    assert [line["url.path"] for line in await lines(tmp_path, "access")] == ["/r"]
    assert await lines(tmp_path, "calls") == []


async def test_names_that_the_configuration_redacts_are_hidden(tmp_path: Path) -> None:
    app = gateway(tmp_path, redact=["x-tenant"])
    async with living(app):
        logging.getLogger("some.library").warning("said", extra={"x_tenant": "acme", "other": "stays"})

    said = (await lines(tmp_path, "app"))[0]
    assert (said["x_tenant"], said["other"]) == ("[redacted]", "stays")


async def test_a_log_that_cannot_be_written_is_named_on_the_admin_side_only(tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").symlink_to("/dev/full")
    app = gateway(tmp_path, flush_every="1ms")
    async with living(app):
        view = GatewayView(app)
        assert view.readiness()[1]["failing_logs"] == ()
        await ask(app, target="/r")
        with trio.fail_after(10):
            while not (failing := view.readiness()[1]["failing_logs"]):
                await trio.lowlevel.checkpoint()
        assert (view.readiness()[0], failing) == (True, ("calls",))
        answer = await ask(app, target="/readyz")
        assert (answer.status, answer.json) == (200, {"status": "ready"})
        (tmp_path / "calls.jsonl").unlink()
