"""The status that an answer takes over from the call in ``status_from``, and the Location that belongs to it."""

from __future__ import annotations

import httpx
import pytest

from tests.support.composition.composing import TWO, Handler, answer, compose

FROM_B = TWO + '[routes.answer]\nstatus_from = "b"\n'
LOCATION = (("location", "/b/7"),)


def created(status: int, body: bytes = b'{"id": 7}') -> Handler:
    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"location": "/b/7", "retry-after": "5"}, content=body)

    return handler


@pytest.mark.parametrize("status", [201, 202, 204])
async def test_the_status_and_the_location_of_the_call_go_along(status: int) -> None:
    ran = await compose(FROM_B, {"/a": created(201), "/b": created(status, b"" if status == 204 else b"1")})
    assert (ran.result.status, ran.result.headers, ran.result.completed) == (status, LOCATION, True)
    assert ran.result.answer == {"a": {"id": 7}, "b": None if status == 204 else 1}


@pytest.mark.parametrize("status", [200, 203, 206])
async def test_another_status_of_success_gives_the_status_of_the_route(status: int) -> None:
    ran = await compose(FROM_B + "status = 203\n", {"/a": created(201), "/b": created(status)})
    assert (ran.result.status, ran.result.headers) == (203, ())


async def test_a_201_of_the_route_has_the_location_of_the_named_call_only() -> None:
    ran = await compose(FROM_B + "status = 201\n", {"/a": created(201), "/b": answer(1)})
    assert (ran.result.status, ran.result.headers) == (201, ())
    ran = await compose(FROM_B + "status = 201\n", {"/a": created(201), "/b": created(202)})
    assert (ran.result.status, ran.result.headers) == (202, LOCATION)


async def test_a_configured_location_replaces_that_of_the_call() -> None:
    text = FROM_B + 'headers = { location = "/mine/{b.id}" }\n'
    ran = await compose(text, {"/a": answer(1), "/b": created(201)})
    assert (ran.result.status, ran.result.headers) == (201, (("location", "/mine/7"),))


async def test_a_call_that_failed_or_was_skipped_gives_no_status() -> None:
    optional = TWO + 'optional = true\nwhen = "a"\n[routes.answer]\nstatus_from = "b"\n'
    failed = await compose(optional, {"/a": answer(1), "/b": created(503)})
    skipped = await compose(optional, {"/a": answer(0 > 1), "/b": created(201)})
    for ran in (failed, skipped):
        assert (ran.result.failure, ran.result.status, ran.result.headers) == (None, 200, ())


async def test_null_on_keeps_the_status_and_ok_decides_whether_it_is_a_success() -> None:
    null = TWO + 'null_on = [202]\n[routes.answer]\nstatus_from = "b"\n'
    ran = await compose(null, {"/a": answer(1), "/b": created(202)})
    assert (ran.result.status, ran.result.answer, ran.result.headers) == (202, {"a": 1, "b": None}, LOCATION)
    strict = TWO + 'ok = [200]\n[routes.answer]\nstatus_from = "b"\n'
    ran = await compose(strict, {"/a": answer(1), "/b": created(201)})
    assert ran.result.failure is not None
    assert (ran.result.failure.status, ran.result.failure.received_status) == (502, 201)


async def test_a_location_with_a_line_break_is_left_out() -> None:
    async def injecting(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, headers=[(b"location", b"/b\r\nset-cookie: a=b")], content=b"1")

    ran = await compose(FROM_B, {"/a": answer(1), "/b": injecting})
    assert (ran.result.status, ran.result.headers) == (201, ())
