"""Gateway context: runtime, recorder, readiness and limits."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import trio

from tests.support.server.asgi import conversation, living
from umbel.config.schema.sections import Config
from umbel.core.errors import RequestError
from umbel.core.events import NULL
from umbel.gateway.app import Umbel
from umbel.gateway.context import State
from umbel.server.limits.server_limits import Limits

from .gateways import gateway, route, says

MockClock = trio.testing.MockClock


def test_without_a_runtime_a_request_is_refused_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    app, _ = gateway()
    with caplog.at_level(logging.ERROR), pytest.raises(RequestError) as caught:
        app.gateway_context.require_runtime()
    assert caught.value.status == 503
    assert "the application is not started; the server must run the ASGI lifespan first" in caplog.text


async def test_the_runtimes_recorder_is_used_while_the_application_is_open(tmp_path: Path) -> None:
    app = Umbel(__name__, Config.model_validate({"logs": {"dir": str(tmp_path)}}))
    serving = app.gateway_context.serving
    assert app.recorder is serving.recorder is NULL
    async with living(app):
        assert serving.runtime is app.runtime
        assert app.recorder is serving.recorder is app.runtime.recorder
        assert app.recorder is not NULL
    assert serving.runtime is None
    assert app.recorder is serving.recorder is NULL


def test_an_application_is_ready_if_it_serves_and_neither_drains_nor_is_degraded() -> None:
    app, _ = gateway()
    serving = app.gateway_context.serving
    for state in State:
        serving.state = state
        assert app.ready is (state is State.SERVING)
    serving.state = State.SERVING
    app.set_degraded(True)
    assert not app.ready
    app.set_degraded(False)
    app.begin_drain()
    assert not app.ready


@pytest.mark.parametrize("hooks", ["auto", "all"])
async def test_limits_that_are_replaced_bound_the_time_of_a_body(hooks: str, autojump_clock: MockClock) -> None:
    """Under a server without its own limit, before Quart and through Quart."""
    call = {"upstream": "up", "path": "/", "json": "{got: body}"}
    app, _ = gateway(route(calls={"part": call}, body="json"), server={"hooks": hooks}, up=says(1))
    app.limits = Limits(body_timeout=1.5, min_body_rate=math.inf)
    fields = [("content-type", "application/json")]
    async with living(app), conversation(app, "POST", "/r", headers=fields) as talk:
        await talk.body(b"{", more=True)
        began = trio.current_time()
        await talk.head.wait()
        assert trio.current_time() - began == pytest.approx(1.5)
    assert talk.answer.status == 408
