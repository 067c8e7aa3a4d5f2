"""Handlers of ``@app.compose`` before Quart: hooks, Quart's contexts, bodies, cancels, and nothing left."""

from __future__ import annotations

import gc
import threading
import uuid
from contextlib import suppress
from contextvars import ContextVar
from typing import Any
from unittest import mock

import httpx
import pytest
import quart
import trio
from quart import (
    Response,
    abort,
    after_this_request,
    copy_current_request_context,
    current_app,
    g,
    has_request_context,
    request,
    session,
    url_for,
)
from quart.ctx import has_app_context
from quart_trio.wrappers import TrioRequest
from quart_trio.wrappers.request import TrioBody
from werkzeug.routing import BaseConverter

from tests.support.server.asgi import ask, conversation, living
from tests.support.server.stray_cancel import stray_cancel
from umbel.composition.gather import Compose
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel
from umbel.gateway.handler_cycle import HandlerCycle
from umbel.gateway.quart import quart_context

from .gateways import gateway, says

MockClock = trio.testing.MockClock
FORM = ("content-type", "application/x-www-form-urlencoded")


def is_before_quart(app: Umbel, target: bytes, method: str = "GET") -> bool:
    return app.route_table.find(method, target) is not None


async def answers_none(compose: Any) -> None:
    """Handler without calls."""


# Before Quart or through Quart.


async def test_a_handler_is_answered_before_quart_without_hooks() -> None:
    app, _ = gateway()
    app.compose("/h", methods=["GET", "POST"])(answers_none)
    async with living(app):
        found = [is_before_quart(app, b"/h", method) for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT")]
        answer = await ask(app, target="/h")
    assert found == [True, True, True, False, False]
    assert (answer.status, answer.body) == (200, b"null")


@pytest.mark.parametrize("mode", ["auto", "all", "python"])
async def test_a_hook_runs_for_handlers_in_each_mode(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    app, _ = gateway(server={"hooks": mode})
    app.compose("/h")(answers_none)

    @app.before_request
    async def login() -> None:
        abort(401)

    async with living(app):
        assert not is_before_quart(app, b"/h")
        assert (await ask(app, target="/h")).status == 401
    warning = (
        "handlers of @app.compose go through Quart, which costs speed, because of the before_request function login"
    )
    assert (warning in capsys.readouterr().err) is (mode != "all")


async def test_with_hooks_all_a_handler_goes_through_quart() -> None:
    app, _ = gateway(server={"hooks": "all"})
    app.compose("/h")(answers_none)
    async with living(app):
        assert not is_before_quart(app, b"/h")


async def test_a_replaced_view_and_an_endpoint_of_a_blueprint_are_left_to_quart() -> None:
    app, _ = gateway()
    app.compose("/wrapped")(answers_none)
    app.compose("/blue", endpoint="blue.print")(answers_none)
    app.compose("/plain", endpoint="plain")(answers_none)
    view = app.view_functions["answers_none"]

    async def wrapped() -> Any:
        response = await view()
        response.headers["x-wrapped"] = "yes"
        return response

    app.view_functions["answers_none"] = wrapped
    async with living(app):
        before = [is_before_quart(app, target) for target in (b"/wrapped", b"/blue", b"/plain")]
        answer = await ask(app, target="/wrapped")
    assert before == [False, False, True]
    assert answer["x-wrapped"] == "yes"


# Quart's contexts.


async def test_a_handler_can_use_quarts_context(way: str) -> None:
    app, _ = gateway()

    @app.compose("/h/<int:number>", methods=["POST"])
    async def handler(compose: Any, number: int) -> dict[str, Any]:
        assert has_request_context()
        assert has_app_context()
        g.number = number

        @copy_current_request_context
        async def beside() -> str:
            return request.path

        return {
            "app": current_app.name,
            "args": request.args.to_dict(),
            "beside": await beside(),
            "endpoint": request.endpoint,
            "field": request.headers["x-mine"],
            "g": g.number,
            "json": await request.get_json(),
            "method": request.method,
            "rule": str(request.url_rule),
            "session": dict(session),
            "url": url_for("handler", number=8),
            "view_args": request.view_args,
        }

    fields = [("content-type", "application/json"), ("x-mine", "é")]
    async with living(app):
        answer = await ask(app, "POST", "/h/7?a=1", body=b"[1]", headers=fields)
    assert answer.json == {
        "app": app.name,
        "args": {"a": "1"},
        "beside": "/h/7",
        "endpoint": "handler",
        "field": "é",
        "g": 7,
        "json": [1],
        "method": "POST",
        "rule": "/h/<int:number>",
        "session": {},
        "url": "/h/8",
        "view_args": {"number": 7},
    }


async def test_no_quart_context_is_made_for_a_handler_that_does_not_use_it() -> None:
    app, _ = gateway(up=says(1))

    @app.compose("/h")
    async def handler(compose: Any) -> Any:
        async with compose.gather() as calls:
            found = calls.get("up", "/")
        return found.value

    async with living(app):
        with mock.patch.object(quart_context, "context_of", side_effect=AssertionError):
            assert (await ask(app, target="/h")).json == 1


async def test_after_this_request_functions_can_change_the_response(way: str) -> None:
    app, _ = gateway()

    @app.compose("/h")
    async def handler(compose: Any) -> int:
        @after_this_request
        async def add(response: Response) -> Response:
            assert response.headers["content-type"] == "application/json"
            response.set_cookie("seen", "1")
            return response

        return 5

    async with living(app):
        answer = await ask(app, target="/h")
    assert (answer.json, answer["set-cookie"], answer["cache-control"]) == (5, "seen=1; Path=/", "private")


async def test_error_handlers_of_the_application_get_a_handlers_exception(way: str) -> None:
    app, _ = gateway()

    class MineError(Exception):
        pass

    @app.errorhandler(MineError)
    async def mine(error: MineError) -> tuple[str, int]:
        return f"{error} in {g.where}, {request.path}", 418

    @app.errorhandler(404)
    async def missing(error: Exception) -> tuple[str, int]:
        return "nothing here", 404

    @app.compose("/h/<what>")
    async def handler(compose: Any, what: str) -> Any:
        g.where = "the handler"
        if what == "group":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(raises)
                await trio.sleep_forever()
        if what == "abort":
            abort(404)
        if what == "teapot":
            abort(418)
        raise MineError("broken")

    async def raises() -> None:
        raise MineError("broken apart")

    async with living(app):
        asked = {what: await ask(app, target=f"/h/{what}") for what in ("mine", "group", "abort", "teapot")}
    answers = {what: (answer.status, answer.body[:40]) for what, answer in asked.items()}
    assert answers["mine"] == (418, b"broken in the handler, /h/mine")
    assert answers["group"] == (418, b"broken apart in the handler, /h/group")
    assert answers["abort"] == (404, b"nothing here")
    assert asked["teapot"]["content-type"] == "application/problem+json"


async def test_an_exception_that_no_handler_takes_is_a_500_and_recorded_once(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app, records = gateway()

    @app.compose("/h")
    async def handler(compose: Any) -> Any:
        raise ZeroDivisionError("mine")

    async with living(app):
        answer = await ask(app, target="/h")
    assert (answer.status, answer["content-type"]) == (500, "application/problem+json")
    assert [note.event for note in records.logged] == ["request.crashed"]
    (record,) = records.requests
    assert (record.status, record.kind, record.request.route) == (500, Kind.INTERNAL, "/h")


async def test_a_stray_cancel_is_a_500(way: str, autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.compose("/h")
    async def handler(compose: Any) -> Any:
        raise await stray_cancel()

    async with living(app):
        assert (await ask(app, target="/h")).status == 500
    assert [record.kind for record in records.requests] == [Kind.INTERNAL]


# Bodies.


async def test_files_of_a_form_are_closed_at_the_end_of_the_request(way: str) -> None:
    app, _ = gateway()
    files = []

    @app.compose("/h", methods=["POST"])
    async def handler(compose: Any) -> str:
        files.append((await request.files)["f"])
        return files[0].read().decode()

    body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\nhi\r\n--x--\r\n'
    fields = [("content-type", "multipart/form-data; boundary=x"), ("content-length", str(len(body)))]
    async with living(app):
        assert (await ask(app, "POST", "/h", body=body, headers=fields)).json == "hi"
    assert files[0].stream.closed


async def test_a_second_reader_of_a_body_continues_after_the_first_is_cancelled(
    way: str, autojump_clock: MockClock
) -> None:
    app, _ = gateway()

    @app.compose("/h", methods=["POST"], deadline=None)
    async def handler(compose: Any) -> str:
        whole: list[bytes] = []

        async def read() -> None:
            whole.append(await request.body)

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1):
                nursery.start_soon(read)
                await anext(request.body)
        return b"".join(whole).decode()

    async with living(app), conversation(app, "POST", "/h") as talk:
        await trio.sleep(3)
        await talk.body(b"ab", more=True)
        await talk.body(b"cd")
    assert talk.answer.json == "abcd"


async def test_a_body_that_is_too_large_is_refused_to_the_handler(way: str) -> None:
    app, records = gateway(server={"max_body": "1KB"})

    @app.compose("/h", methods=["POST"])
    async def handler(compose: Any) -> str:
        return (await request.get_data(as_text=True)).upper()

    async with living(app):
        assert (await ask(app, "POST", "/h", body=b"x" * 1000)).json == "X" * 1000
        assert (await ask(app, "POST", "/h", body=b"x" * 1001)).status == 413
    assert [record.status for record in records.requests] == [200, 413]


class OwnBody(TrioBody):
    """Body class of the application."""


class OwnRequest(TrioRequest):
    """Request class of the application that is not derived from Umbel's."""

    body_class = OwnBody


async def test_an_own_request_class_reads_bodies_under_the_same_limits() -> None:
    app, _ = gateway(server={"max_body": "1KB"})
    app.request_class = OwnRequest  # type: ignore[assignment]

    @app.post("/view")
    async def view() -> bytes:
        return await request.get_data()

    async with living(app):
        urlencoded = [FORM]
        assert (await ask(app, "POST", "/view", body=b"a=1", headers=urlencoded)).body == b"a=1"
        assert (await ask(app, "POST", "/view", body=b"x" * 1001)).status == 413


# Context variables, tasks and references after the request.


async def test_a_context_variable_of_a_handler_is_unset_after_the_request(way: str) -> None:
    app, _ = gateway()
    user: ContextVar[str] = ContextVar("user", default="nobody")

    @app.compose("/h/<waits>")
    async def handler(compose: Any, waits: str) -> str:
        before = user.get()
        user.set("somebody")
        if waits == "yes":
            await trio.lowlevel.checkpoint()
        return before

    async with living(app):
        before = [(await ask(app, target=f"/h/{waits}")).json for waits in ("no", "yes", "no", "yes")]
        assert not has_request_context()
    assert before == ["nobody"] * 4
    assert user.get() == "nobody"


async def test_mutable_path_values_are_not_shared_by_requests(way: str) -> None:
    class Words(BaseConverter):
        def to_python(self, value: str) -> list[str]:
            return value.split("+")

    app, _ = gateway()
    app.url_map.converters["words"] = Words

    @app.compose("/words/<words:found>/<uuid:ident>")
    async def handler(compose: Any, found: list[str], ident: uuid.UUID) -> list[str]:
        found.append(str(ident.int))
        return found

    async with living(app):
        for _ in range(2):
            assert (await ask(app, target=f"/words/a+b/{uuid.UUID(int=5)}")).json == ["a", "b", "5"]


async def test_a_handlers_request_leaves_nothing_to_the_garbage_collector(way: str) -> None:
    app, _ = gateway()

    @app.compose("/h", methods=["POST"])
    async def handler(compose: Any) -> Any:
        g.body = await request.body
        if request.args:
            raise ZeroDivisionError
        return g.body.decode()

    @app.errorhandler(ZeroDivisionError)
    async def mine(error: ZeroDivisionError) -> str:
        return "handled"

    async with living(app):
        await ask(app, "POST", "/h", body=b"1")
        await ask(app, "POST", "/h?a=1", body=b"1")
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                await ask(app, "POST", "/h", body=b"1")
            # The frames of an exception remain, and hold the arguments of the error handler.
            assert not [each for each in gc.get_objects() if isinstance(each, TrioRequest)]
        finally:
            gc.enable()
            gc.collect()


async def test_requests_that_one_task_makes_share_no_context_variables(way: str) -> None:
    app, _ = gateway()

    @app.compose("/login")
    async def login(compose: Any) -> str:
        g.user = "alice"
        return "ok"

    @app.get("/whoami")
    async def whoami() -> dict[str, Any]:
        return {"user": g.get("user")}

    async with living(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a.test") as client:
        assert (await client.get("/login")).json() == "ok"
        assert not has_request_context()
        assert (await client.get("/whoami")).json() == {"user": None}


async def test_a_request_to_another_application_keeps_the_callers_context(way: str) -> None:
    outer, _ = gateway()
    inner, _ = gateway()
    inner.compose("/inner")(answers_none)

    @outer.compose("/outer")
    async def handler(compose: Any) -> list[Any]:
        g.user = "alice"
        await ask(inner, target="/inner")
        return [request.path, g.get("user"), current_app == outer]

    async with living(outer), living(inner):
        assert (await ask(outer, target="/outer")).json == ["/outer", "alice", True]


async def test_a_task_that_reads_the_body_after_the_response_waits_for_ever(
    way: str, autojump_clock: MockClock
) -> None:
    app, records = gateway()
    background = trio.CancelScope()
    ended: list[str] = []

    @app.compose("/h", methods=["POST"], deadline=None)
    async def handler(compose: Any) -> str:
        async def read() -> None:
            with background:
                await request.get_data()
            ended.append("cancelled" if background.cancelled_caught else "read")

        app.nursery.start_soon(read)
        await trio.sleep(1)
        return "ok"

    async with living(app):
        async with conversation(app, "POST", "/h") as talk:
            await talk.body(b"a", more=True)
        assert talk.answer.json == "ok"
        await trio.sleep(5)
        assert ended == []
        background.cancel()
        await trio.testing.wait_all_tasks_blocked()
    assert ended == ["cancelled"]
    assert [(record.status, record.kind) for record in records.requests] == [(200, None)]


async def test_a_request_made_after_the_response_has_no_readable_body(way: str, autojump_clock: MockClock) -> None:
    app, _ = gateway()
    began: list[str] = []

    @app.compose("/h", methods=["POST"])
    async def handler(compose: Any) -> str:
        async def read() -> None:
            await trio.sleep(1)
            began.append(request.path)
            with trio.move_on_after(10):
                await request.get_data()
                began.append("read")

        app.nursery.start_soon(read)
        return "ok"

    async with living(app):
        async with conversation(app, "POST", "/h") as talk:
            await talk.body(b"a", more=True)
        assert talk.answer.json == "ok"
        await trio.sleep(20)
    assert began == ["/h"]


async def test_no_part_of_a_request_is_in_a_reference_cycle() -> None:
    app, _ = gateway()

    @app.compose("/h", methods=["POST"])
    async def handler(compose: Any) -> Any:
        return len(await request.body)

    async with living(app):
        await ask(app, "POST", "/h", body=b"1")
        gc.collect()
        gc.disable()
        try:
            await ask(app, "POST", "/h", body=b"1")
            left = [each for each in gc.get_objects() if isinstance(each, HandlerCycle | Compose | TrioRequest)]
            assert [type(each).__name__ for each in left] == []
        finally:
            gc.enable()


async def test_the_deadline_is_in_force_before_the_handler_waits(way: str, autojump_clock: MockClock) -> None:
    app, _ = gateway()

    @app.compose("/h", deadline=3)
    async def handler(compose: Any) -> float:
        return trio.current_effective_deadline() - trio.current_time()

    async with living(app):
        assert (await ask(app, target="/h")).json == pytest.approx(3.02)


async def test_a_composed_response_has_no_timeout_after_after_this_request(way: str) -> None:
    app, _ = gateway()
    timeouts: list[object] = []

    @app.compose("/h")
    async def handler(compose: Any) -> int:
        @after_this_request
        async def look(response: Response) -> Response:
            timeouts.append(response.timeout)
            return response

        return 1

    async with living(app):
        assert (await ask(app, target="/h")).json == 1
    assert timeouts == [None]


async def test_a_lazy_context_behaves_like_quarts_own(way: str) -> None:
    app, _ = gateway()

    @app.compose("/h")
    async def handler(compose: Any) -> list[object]:
        context = quart_context._OF_REQUEST.get()
        quarts = quart.ctx.AppContext if quart_context.CONTEXT_IS_ARGUMENT else quart.ctx.RequestContext
        context.mine = 1
        del context.mine
        async with context:
            path = request.path
        return [isinstance(context, quarts), hasattr(context, "mine"), path]

    async with living(app):
        assert (await ask(app, target="/h")).json == [True, False, "/h"]


def test_threads_that_use_a_lazy_context_at_once_get_one_context() -> None:
    inside = threading.Barrier(2, timeout=5)
    made: list[object] = []

    def make() -> object:
        with suppress(threading.BrokenBarrierError):
            inside.wait(0.05)
        made.append(object())
        return made[-1]

    lazy = quart_context.LazyContext(make)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(quart_context.context_of(lazy))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert found == [made[0]] * 2


async def test_a_gather_block_that_begins_during_the_body_has_a_deadline(way: str, autojump_clock: MockClock) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    app, _ = gateway(up=never)

    @app.compose("/h", methods=["POST"], deadline=0.5)
    async def handler(compose: Any) -> Any:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.get_data)
            await trio.sleep(0.1)
            async with compose.gather() as calls:
                part = calls.get("up", "/", default="none")
        return part.value

    async with living(app), conversation(app, "POST", "/h") as talk:
        await talk.body(b"a", more=True)
        await trio.sleep(2)
        await talk.body(b"b")
    assert talk.answer.json == "none"


async def test_a_group_of_a_stray_cancel_and_a_crash_loses_neither(way: str, autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.compose("/h")
    async def handler(compose: Any) -> None:
        raise BaseExceptionGroup("both", [await stray_cancel(), ValueError("mine")])

    async with living(app):
        assert (await ask(app, target="/h")).status == 500
    assert {type(note.error).__name__ for note in records.logged} >= {"ValueError"}
    assert [(record.status, record.kind) for record in records.requests] == [(500, Kind.INTERNAL)]


# Clients that leave.


async def test_a_client_that_leaves_cancels_the_handler(way: str, autojump_clock: MockClock) -> None:
    app, records = gateway()
    ended: list[str] = []

    @app.compose("/h", deadline=None)
    async def handler(compose: Any) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            ended.append(str(cancelled.reason))
            raise

    async with living(app), conversation(app, "GET", "/h") as talk:
        await talk.body(b"")
        await trio.testing.wait_all_tasks_blocked()
        await talk.disconnect()
    assert ended == ["client-gone"]
    assert [(record.status, record.kind) for record in records.requests] == [(499, Kind.CLIENT_GONE)]


async def test_a_client_that_leaves_in_its_body_cancels_the_handler_that_reads_it(
    way: str, autojump_clock: MockClock
) -> None:
    app, records = gateway()
    ended: list[str] = []

    @app.compose("/h", methods=["POST"], deadline=None)
    async def handler(compose: Any) -> None:
        try:
            await request.body
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    async with living(app), conversation(app, "POST", "/h") as talk:
        await talk.body(b"a", more=True)
        await trio.testing.wait_all_tasks_blocked()
        await talk.disconnect()
    assert ended == ["Cancelled"]
    assert [(record.status, record.kind) for record in records.requests] == [(499, Kind.CLIENT_GONE)]


async def test_a_handler_past_its_deadline_is_cancelled_and_answered(way: str, autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.compose("/h", deadline=0.5)
    async def handler(compose: Any) -> None:
        await trio.sleep_forever()

    async with living(app):
        began = trio.current_time()
        answer = await ask(app, target="/h")
    assert (answer.status, answer["content-type"]) == (504, "application/problem+json")
    assert trio.current_time() - began == pytest.approx(0.52)
    assert [record.kind for record in records.requests] == [Kind.TIMEOUT]
