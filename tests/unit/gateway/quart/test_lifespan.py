"""ASGI lifespan: probes, order of opening and closing, failures, background tasks, cancel."""

from __future__ import annotations

import pytest
import trio
from hypercorn.utils import LifespanFailureError

from tests.support.logs.records import Records
from tests.support.server.asgi import LifespanFailedError, ask, living
from tests.unit.gateway.gateways import gateway, route, says
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel
from umbel.gateway.context import State
from umbel.gateway.operation.admin import GatewayView
from umbel.server import hypercorn
from umbel.upstream import Client

MockClock = trio.testing.MockClock


async def test_livez_is_always_200_and_readyz_between_startup_and_shutdown() -> None:
    app, records = gateway()
    assert app.state is State.NEW
    assert (await ask(app, target="/livez")).status == 200
    early = await ask(app, target="/readyz")
    assert (early.status, early["content-type"], early["retry-after"]) == (503, "application/problem+json", "1")
    async with living(app):
        ready = await ask(app, target="/readyz")
        assert (ready.status, ready.json) == (200, {"status": "ready"})
        assert ready["cache-control"] == "no-store"
        assert (await ask(app, "HEAD", "/livez")).body == b""
        assert (await ask(app, "POST", "/livez"))["allow"] == "GET, HEAD, OPTIONS"
        assert (await ask(app, "OPTIONS", "/readyz")).status == 204
    assert app.state is State.STOPPED
    assert (await ask(app, target="/readyz")).status == 503
    assert (await ask(app, target="/livez")).status == 200
    assert [record.request.route for record in records.requests][:2] == ["/livez", "/readyz"]


async def test_readyz_is_503_with_the_reason_while_degraded_or_draining() -> None:
    app, _ = gateway()
    async with living(app):
        app.set_degraded(True)
        answer = await ask(app, target="/readyz")
        assert (answer.status, answer.json["detail"]) == (503, "Not ready.")
        assert GatewayView(app).readiness()[1]["state"] == "degraded"
        assert (await ask(app, target="/livez")).status == 200
        app.set_degraded(False)
        assert (await ask(app, target="/readyz")).status == 200
        app.begin_drain()
        answer = await ask(app, target="/readyz")
        assert (answer.status, answer.json["detail"]) == (503, "Not ready.")
        assert GatewayView(app).readiness()[1]["state"] == "draining"


async def test_probes_skip_hooks_and_yield_to_the_applications_routes() -> None:
    app, _ = gateway()

    @app.before_request
    async def login() -> tuple[str, int]:
        return "who are you?", 401

    @app.get("/<path:anything>")
    async def catch_all(anything: str) -> str:
        return anything

    async with living(app):
        assert (await ask(app, target="/livez")).json == {"status": "live"}

    own, _ = gateway()

    @own.get("/livez")
    async def livez() -> str:
        return "mine"

    async with living(own):
        assert (await ask(own, target="/livez")).body == b"mine"


async def test_startup_and_shutdown_functions_run_while_the_runtime_is_open() -> None:
    app, _ = gateway(up=says(1))
    seen = []

    @app.before_serving
    async def before() -> None:
        seen.append(("before", list(app.runtime.callers), app.state))

    @app.after_serving
    async def after() -> None:
        seen.append(("after", list(app.runtime.callers), app.state))

    async with living(app):
        pass
    assert seen == [("before", ["up"], State.STARTING), ("after", ["up"], State.STOPPING)]


async def test_an_error_in_a_startup_function_fails_the_startup_with_its_text() -> None:
    app, records = gateway()

    @app.before_serving
    async def before() -> None:
        raise RuntimeError("no database at db.example")

    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match="no database at db.example")):
        async with living(app):
            raise AssertionError("unreachable")
    assert app.state is State.FAILED
    assert app.current_runtime is None
    assert any("no database" in note.message for note in records.logged)


async def test_logs_that_cannot_be_opened_fail_the_startup(tmp_path: object) -> None:
    config = Config.model_validate({"logs": {"dir": "/dev/null/logs"}})
    app = Umbel(__name__, config)
    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match="/dev/null")):
        async with living(app):
            raise AssertionError("unreachable")
    assert (await ask(app, target="/readyz")).status == 503


async def test_tls_files_that_cannot_be_used_fail_the_startup(tmp_path: object) -> None:
    config = Config.model_validate(
        {"upstreams": {"users": {"urls": ["https://users.test"], "tls": {"ca": "/nowhere/ca.pem"}}}}
    )
    app = Umbel(__name__, config, recorder=Records())
    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match="ca")):
        async with living(app):
            raise AssertionError("unreachable")


async def test_a_failing_shutdown_function_is_reported() -> None:
    app, records = gateway()

    @app.after_serving
    async def after() -> None:
        raise RuntimeError("cannot say goodbye")

    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match="cannot say goodbye")):
        async with living(app):
            pass
    assert app.state is State.FAILED
    assert records.logged


async def test_a_crash_of_a_background_task_ends_the_lifespan_with_an_error() -> None:
    app, records = gateway(route(), up=says(1))

    async def crash() -> None:
        raise ValueError("background")

    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailureError, match="background")):
        async with living(app):
            app.nursery.start_soon(crash)
            await trio.sleep_forever()
    assert app.state is State.FAILED
    assert [str(note.error) for note in records.logged] == ["background"]
    assert (await ask(app, target="/readyz")).status == 503
    assert (await ask(app, target="/r")).status == 503


async def test_quarts_background_tasks_are_caught_and_recorded() -> None:
    app, records = gateway()
    done = trio.Event()

    async def crash() -> None:
        done.set()
        raise ValueError("a background task")

    async with living(app):
        app.add_background_task(crash)
        await done.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert (await ask(app, target="/readyz")).status == 200
    assert [str(note.error) for note in records.logged] == ["a background task"]


async def test_background_tasks_have_a_timeout_that_does_not_cut_shutdown_functions(autojump_clock: MockClock) -> None:
    app, _ = gateway()
    seen = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append(("background cut", trio.current_time() - began))

    @app.after_serving
    async def after() -> None:
        await trio.sleep(20)
        seen.append(("hook done", trio.current_time() - began))

    async with living(app):
        app.nursery.start_soon(background)
        began = trio.current_time()
    assert seen == [("background cut", 5.0), ("hook done", 20.0)]


async def test_a_shutdown_without_background_tasks_waits_for_nothing(autojump_clock: MockClock) -> None:
    app, _ = gateway()
    async with living(app):
        began = trio.current_time()
    assert trio.current_time() == began


async def test_a_cancelled_lifespan_closes_everything_and_raises_the_cancel() -> None:
    app, _ = gateway(up=says(1))
    with trio.CancelScope() as scope:
        async with living(app):
            scope.cancel(reason="the server is gone")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert app.current_runtime is None
    assert not app.ready


async def test_a_request_without_a_lifespan_gets_one_clear_error(caplog: pytest.LogCaptureFixture) -> None:
    app, records = gateway(route(), up=says(1))

    @app.get("/plain")
    async def plain() -> str:
        return "plain routes need nothing"

    answer = await ask(app, target="/r")
    assert (answer.status, answer["content-type"]) == (503, "application/problem+json")
    assert "lifespan" in caplog.text
    assert (await ask(app, target="/plain")).status == 200
    assert [record.status for record in records.requests] == [503, 200]


async def test_real_clients_and_real_logs_open_and_close(tmp_path: object) -> None:
    config = Config.model_validate(
        {
            "upstreams": {"users": {"urls": ["http://127.0.0.1:1"]}},
            "logs": {"dir": str(tmp_path)},
            "routes": [{"path": "/r", "calls": {"part": {"upstream": "users", "path": "/"}}}],
        }
    )
    app = Umbel(__name__, config)
    async with living(app):
        assert isinstance(app.runtime.callers["users"], Client)
        answer = await ask(app, target="/r")
    assert answer.status == 502
    from pathlib import Path

    access = (Path(str(tmp_path)) / "access.jsonl").read_text().splitlines()
    assert len(access) == 1
    assert answer["x-request-id"] in access[0]
    assert "log.closed" in (Path(str(tmp_path)) / "app.jsonl").read_text()


async def test_a_route_that_passes_websockets_on_is_refused_under_another_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hypercorn, "installed", lambda: False)  # As with UMBEL_GUARD=off.
    proxy = {"path": "/chat", "proxy": {"upstream": "up", "websocket": True}}
    app, _ = gateway(route(), proxy, up=says(1))
    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailedError, match="websocket: needs Umbel's own server")):
        async with living(app, own_server=False):
            raise AssertionError
    async with living(app):
        assert app.state is State.SERVING
    async with app.test_app():
        assert app.state is State.SERVING


async def test_a_proxy_route_without_websockets_is_served_under_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn, "installed", lambda: False)
    app, _ = gateway({"path": "/chat", "proxy": {"upstream": "up"}}, up=says(1))
    async with living(app, own_server=False):
        assert app.state is State.SERVING
