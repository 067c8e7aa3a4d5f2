"""Error handling under Quart: problem documents, the application's error handlers, and groups of exceptions."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from quart import Response, abort
from werkzeug.exceptions import NotFound

from tests.support.server.asgi import ask, conversation, living
from tests.unit.gateway.gateways import gateway, route, says
from umbel.core.errors import RequestError
from umbel.core.failure_kinds import Kind
from umbel.gateway.app import Umbel

MockClock = trio.testing.MockClock
SECRET = "postgres://10.0.0.7/secret"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/nowhere", 404),
        ("DELETE", "/r", 405),
        ("BREW", "/r", 405),
        ("GET", "/a/../r", 400),
        ("GET", "?x", 400),
        ("CONNECT", "example.com:443", 400),
    ],
)
async def test_an_error_of_quarts_dispatch_is_a_problem_document(method: str, target: str, status: int) -> None:
    app, records = gateway(route(), up=says(1))
    async with living(app):
        answer = await ask(app, method, target)
    assert answer.status == status
    assert answer["content-type"] == "application/problem+json"
    assert answer["cache-control"] == "no-store"
    document = answer.json
    assert document["status"] == status
    assert document["request_id"] == answer["x-request-id"]
    assert document["instance"] == f"urn:umbel:request:{answer['x-request-id']}"
    (record,) = records.requests
    assert record.status == status


async def test_405_and_options_name_the_methods_in_allow() -> None:
    app, _ = gateway(route(), up=says(1))
    async with living(app):
        assert (await ask(app, "DELETE", "/r"))["allow"] == "GET, HEAD, OPTIONS"
        options = await ask(app, "OPTIONS", "/r")
    assert (options.status, options["allow"], options.body) == (204, "GET, HEAD, OPTIONS", b"")


async def test_a_missing_slash_is_still_a_redirect_and_two_slashes_are_merged() -> None:
    app, _ = gateway(route("/r/"), up=says(1))
    async with living(app):
        for target in ("/r", "/r//", "//r/"):
            answer = await ask(app, target=target)
            assert (answer.status, answer["location"]) == (308, "/r/")


async def test_a_crash_in_a_view_is_a_500_without_details_and_a_record_with_them() -> None:
    app, records = gateway()

    @app.get("/boom")
    async def boom() -> str:
        raise LookupError(SECRET)

    async with living(app):
        answer = await ask(app, target="/boom")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert b"LookupError" not in answer.body
    (note,) = records.logged
    assert (note.level, note.event) == ("error", "request.crashed")
    assert isinstance(note.error, LookupError)
    assert note.error.__traceback__ is not None
    assert note.request is not None
    assert note.request.request_id == answer["x-request-id"]
    (record,) = records.requests
    assert (record.status, record.kind, record.request.route) == (500, Kind.INTERNAL, "/boom")


async def test_error_handlers_of_the_application_take_precedence() -> None:
    app, _ = gateway(route(query={"n": {"type": "int"}}), up=says(1))

    @app.errorhandler(404)
    async def lost(error: Exception) -> tuple[str, int]:
        return "lost", 404

    @app.errorhandler(400)
    async def bad(error: Exception) -> tuple[str, int]:
        return "bad", 400

    @app.errorhandler(LookupError)
    async def failed_look(error: Exception) -> tuple[str, int]:
        return "looked in vain", 418

    @app.get("/look")
    async def look() -> str:
        raise KeyError("x")

    async with living(app):
        assert (await ask(app, target="/nowhere")).body == b"lost"
        assert (await ask(app, target="/r?n=x")).body == b"bad"
        answer = await ask(app, target="/look")
    assert (answer.status, answer.body) == (418, b"looked in vain")


async def test_a_handler_for_request_errors_gets_the_error_itself() -> None:
    app, _ = gateway(route(query={"n": {"type": "int"}}), up=says(1))

    @app.errorhandler(RequestError)
    async def bad(error: RequestError) -> tuple[str, int]:
        return error.detail, 422

    async with living(app):
        answer = await ask(app, target="/r?n=x")
    assert answer.status == 422
    assert b'"n"' in answer.body


async def test_abort_shows_only_the_applications_description() -> None:
    app, _ = gateway()

    @app.get("/own")
    async def own() -> None:
        abort(409, description="Somebody else has changed it.")

    @app.get("/stock")
    async def stock() -> None:
        abort(403)

    @app.get("/response")
    async def response() -> None:
        abort(Response("mine", 400))

    @app.get("/busy")
    async def busy() -> None:
        raise RequestError(503, "Come back.", title="Busy")

    async with living(app):
        assert (await ask(app, target="/own")).json["detail"] == "Somebody else has changed it."
        assert "detail" not in (await ask(app, target="/stock")).json
        assert (await ask(app, target="/response")).body == b"mine"
        answer = await ask(app, target="/busy")
    assert (answer.status, answer["retry-after"], answer.json["title"]) == (503, "1", "Busy")


async def test_after_request_functions_get_problem_documents() -> None:
    app, _ = gateway()

    @app.after_request
    async def mark(response: Response) -> Response:
        response.headers["x-hook"] = "seen"
        return response

    async with living(app):
        assert (await ask(app, target="/nowhere"))["x-hook"] == "seen"


async def test_a_crash_in_a_hook_is_a_500_and_recorded() -> None:
    app, records = gateway()

    @app.get("/x")
    async def x() -> str:
        return "x"

    @app.teardown_request
    async def teardown(error: BaseException | None) -> None:
        raise RuntimeError("teardown")

    async with living(app):
        answer = await ask(app, target="/x")
    assert (answer.status, answer["content-type"]) == (500, "application/problem+json")
    assert [str(note.error) for note in records.logged] == ["teardown"]
    assert len(records.requests) == 1


async def test_every_leaf_of_a_group_is_recorded() -> None:
    app, records = gateway()

    @app.get("/group")
    async def group() -> None:
        raise ExceptionGroup("all", [ValueError("a"), ExceptionGroup("inner", [TypeError("b"), LookupError("c")])])

    async with living(app):
        assert (await ask(app, target="/group")).status == 500
    assert [str(note.error) for note in records.logged] == ["a", "b", "c"]


async def test_the_first_leaf_with_a_handler_answers_and_the_others_are_recorded() -> None:
    app, records = gateway()

    @app.errorhandler(TypeError)
    async def typed(error: TypeError) -> str:
        return f"handled {error}"

    @app.get("/group")
    async def group() -> None:
        raise ExceptionGroup("all", [ValueError("a"), TypeError("b"), LookupError("c")])

    async with living(app):
        assert (await ask(app, target="/group")).body == b"handled b"
    assert [type(note.error) for note in records.logged] == [ValueError, LookupError]


async def test_a_failing_error_handler_loses_no_exception() -> None:
    app, records = gateway()

    @app.errorhandler(TypeError)
    async def typed(error: TypeError) -> str:
        raise ZeroDivisionError("handler")

    @app.get("/group")
    async def group() -> None:
        raise ExceptionGroup("all", [TypeError("b"), LookupError("c")])

    async with living(app):
        assert (await ask(app, target="/group")).status == 500
    assert {type(note.error) for note in records.logged} == {LookupError, ZeroDivisionError}


async def test_an_http_error_raised_in_a_nursery_keeps_its_status() -> None:
    app, _ = gateway()

    @app.get("/nested")
    async def nested() -> None:
        async with trio.open_nursery():
            raise NotFound

    async with living(app):
        assert (await ask(app, target="/nested")).status == 404


@pytest.mark.usefixtures("way")
async def test_a_crash_in_a_group_with_a_cancel_is_recorded(autojump_clock: MockClock) -> None:
    app, records = gateway()
    working = trio.Event()

    async def crash_when_cut() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    @app.get("/work")
    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash_when_cut)
            nursery.start_soon(trio.sleep_forever)
            working.set()

    async with living(app), conversation(app, target="/work") as talk:
        await working.wait()
        await talk.disconnect()
    assert [str(note.error) for note in records.logged] == ["while cleaning up"]
    (record,) = records.requests
    assert (record.status, talk.answer.status) == (499, None)


@pytest.mark.usefixtures("way")
async def test_a_task_of_the_requests_nursery_that_crashes_is_a_500(autojump_clock: MockClock) -> None:
    from umbel.gateway.request_context import current_request_context

    app, records = gateway()

    async def crash() -> None:
        raise ValueError("child")

    @app.get("/child")
    async def child() -> str:
        current_request_context().nursery.start_soon(crash)
        await trio.sleep_forever()
        return ""

    async with living(app):
        answer = await ask(app, target="/child")
    assert (answer.status, answer["content-type"]) == (500, "application/problem+json")
    assert [str(note.error) for note in records.logged] == ["child"]
    assert [record.status for record in records.requests] == [500]


@pytest.mark.usefixtures("way")
async def test_a_response_body_that_raises_is_left_incomplete_and_recorded(autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.get("/broken")
    async def broken() -> Response:
        async def parts() -> Any:
            yield b"some"
            raise ValueError("no more")

        return Response(parts())

    async with living(app):
        answer = await ask(app, target="/broken")
    assert (answer.status, answer.body, answer.complete) == (200, b"some", False)
    (record,) = records.requests
    assert (record.status, record.kind, record.bytes_sent) == (200, Kind.INTERNAL, 4)
    assert [str(note.error) for note in records.logged] == ["no more"]


@pytest.mark.usefixtures("way")
async def test_a_response_past_its_timeout_is_left_incomplete_and_recorded(autojump_clock: MockClock) -> None:
    app, records = gateway()

    @app.get("/slow")
    async def slow() -> Response:
        async def parts() -> Any:
            yield b"some"
            await trio.sleep(3600)

        return Response(parts())

    async with living(app):
        began = trio.current_time()
        answer = await ask(app, target="/slow")
        assert trio.current_time() - began == 60
    assert not answer.complete
    assert (records.requests[0].status, records.requests[0].kind) == (200, Kind.TIMEOUT)


async def test_an_invalid_host_is_a_problem_document_and_no_crash() -> None:
    app, records = gateway(route(), up=says(1))
    async with living(app):
        answer = await ask(app, target="/r", headers=[("host", "\xff\xff..\xff")])
    assert answer.status in (200, 400, 404)
    assert len(records.requests) == 1


async def test_quarts_test_client_raises_the_exception_of_a_view() -> None:
    app = Umbel(__name__)
    app.testing = True

    @app.get("/boom")
    async def boom() -> str:
        raise LookupError("shown to the test's author")

    client = app.test_client()
    with pytest.RaisesGroup(pytest.RaisesExc(LookupError, match="shown"), flatten_subgroups=True):
        await client.get("/boom")
