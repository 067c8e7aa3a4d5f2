"""The ASGI lifespan: startup, shutdown, failures and timeouts."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError, LifespanTimeoutError

from umbel.server.lifespan import running_lifespan

MockClock = trio.testing.MockClock


class App:
    """A lifespan application that records the messages, and sends the reply in ``after`` to each."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.scope: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scope = scope
        for answer in self.answers:
            self.asked.append((await receive())["type"])
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                await send({"type": f"lifespan.{answer}", "message": "because"})


async def lived(app: Any, state: dict[str, Any] | None = None, **settings: float) -> None:
    config = Config()
    for name, value in settings.items():
        setattr(config, name, value)
    async with running_lifespan(app, config, state if state is not None else {}):
        await trio.sleep(10)


async def test_an_application_is_started_and_stopped(autojump_clock: MockClock) -> None:
    app, state = App("startup.complete", "shutdown.complete"), {"a": 1}
    await lived(app, state)
    assert app.asked == ["lifespan.startup", "lifespan.shutdown"]
    assert (app.scope["type"], app.scope["state"] is state) == ("lifespan", True)


@pytest.mark.parametrize(
    "app",
    [App(NotImplementedError("no lifespan")), App(), App("startup.complete"), App(ExceptionGroup("", [KeyError()]))],
)
async def test_an_application_without_a_lifespan_is_served(app: App, autojump_clock: MockClock) -> None:
    await lived(app)
    assert trio.current_time() == 10


@pytest.mark.parametrize(
    ("app", "said", "at"),
    [
        (App("startup.failed"), "startup.*because", 0),
        (App("startup.complete", "shutdown.failed"), "shutdown.*because", 10),
        (App("startup.complete", KeyError("late")), "serving.*KeyError.*late", 10),
        (App("startup.complete", ExceptionGroup("", [LifespanFailureError("serving", "mine")])), "mine", 10),
    ],
)
async def test_a_reported_failure_is_raised(app: App, said: str, at: float, autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailureError, match=said), flatten_subgroups=True):
        await lived(app)
    assert trio.current_time() == at


async def test_a_lifespan_that_crashes_while_serving_ends_the_block(autojump_clock: MockClock) -> None:
    async def crashes(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await trio.sleep(3)
        raise ValueError("background")

    with pytest.RaisesGroup(
        pytest.RaisesExc(LifespanFailureError, match="ValueError: background"), flatten_subgroups=True
    ):
        await lived(crashes)
    assert trio.current_time() == 3


@pytest.mark.parametrize(("app", "at"), [(App(None, None), 4), (App("startup.complete", None, None), 15)])
async def test_startup_and_shutdown_must_complete_in_time(app: App, at: float, autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(LifespanTimeoutError, flatten_subgroups=True):
        await lived(app, startup_timeout=4, shutdown_timeout=5)
    assert trio.current_time() == at


async def test_a_cancel_of_the_block_cancels_the_lifespan(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            ended.append(trio.current_time())

    with trio.move_on_after(2):
        await lived(waits)
    assert ended == [2]
