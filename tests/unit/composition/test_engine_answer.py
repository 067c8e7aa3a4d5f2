"""The answer of a composition: statuses, shape, headers and cookies."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.composition.composing import TWO, answer, calls, compose
from umbel.core.failure_kinds import Kind


async def test_the_answer_has_the_order_of_the_configuration(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(TWO, {"/a": answer(1, after=2), "/b": answer(2, after=1)})
    assert list(ran.result.answer) == ["a", "b"]


async def test_null_on_gives_null_and_ok_gives_the_value() -> None:
    text = TWO.replace('path = "/a"', 'path = "/a"\nnull_on = [404]') + "ok = [200, 409]\n"
    ran = await compose(text, {"/a": answer({}, status=404), "/b": answer({"x": 1}, status=409)})
    assert ran.result.answer == {"a": None, "b": {"x": 1}}
    assert ran.result.completed


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_a_failure_and_is_not_followed(status: int) -> None:
    ran = await compose(TWO, {"/a": answer(1), "/b": answer({}, status=status, headers={"location": "/a"})})
    assert ran.result.failure is not None
    assert (ran.result.failure.status, ran.result.failure.received_status) == (502, status)
    assert ran.upstream.targets.count("/a") == 1


async def test_pass_body_takes_over_the_error_body() -> None:
    ran = await compose(TWO + "pass_body = true\n", {"/a": answer(1), "/b": answer({"no": 1}, status=422)})
    assert ran.result.failure is not None
    assert ran.result.failure.body is not None
    assert ran.result.failure.body.content == b'{"no":1}'


async def test_a_shape_that_exceeds_a_bound_on_a_response_is_a_502() -> None:
    text = TWO + '[routes.answer]\nshape = "sum(a)"\n'
    ran = await compose(text, {"/a": answer([1e308, 1e308]), "/b": answer(2)})
    assert ran.result.failure is not None
    assert (ran.result.failure.kind, ran.result.failure.status) == (Kind.BAD_REQUEST, 502)
    assert "routes.0.answer.shape" in ran.recorder.logged[0].message


async def test_the_answer_has_the_configured_shape_status_headers_and_cookies() -> None:
    text = (
        TWO
        + """
    [routes.answer]
    shape = "{b: b, a: a}"
    status = 201
    headers = { x-who = "user {a}" }
    forward_headers = { b = ["x-total"] }
    forward_cookies = { b = ["session"] }
    """
    )

    async def with_cookies(request: httpx.Request) -> httpx.Response:
        cookies = [("set-cookie", "session=1; Path=/"), ("set-cookie", "track=2"), ("x-total", "7"), ("x-other", "8")]
        return httpx.Response(200, headers=cookies, content=b"2")

    ran = await compose(text, {"/a": answer(1), "/b": with_cookies})
    assert list(ran.result.answer.items()) == [("b", 2), ("a", 1)]
    assert ran.result.status == 201
    assert ran.result.headers == (("x-who", "user 1"), ("x-total", "7"), ("set-cookie", "session=1; Path=/"))


async def test_cache_control_is_the_most_restrictive_of_the_responses() -> None:
    ran = await compose(
        TWO,
        {
            "/a": answer(1, headers={"cache-control": "public, max-age=60", "age": "10"}),
            "/b": answer(2, headers={"cache-control": "max-age=90, must-revalidate"}),
        },
    )
    assert ran.result.cache_control == "must-revalidate, max-age=50"
    ran = await compose(TWO, {"/a": answer(1, headers={"cache-control": "max-age=60"}), "/b": answer(2)})
    assert ran.result.cache_control == "no-cache"
    ran = await compose(TWO, {"/a": answer(1), "/b": answer(2)})
    assert ran.result.cache_control is None


@pytest.mark.parametrize("merged", ["list", "map"])
@pytest.mark.parametrize(("listed", "caching"), [([], "max-age=60"), ([1], "no-cache")])
async def test_an_each_without_items_does_not_restrict_caching(listed: list[int], caching: str, merged: str) -> None:
    text = calls("a") + f'[routes.calls.b]\nupstream = "u"\npath = "/b"\neach = "a"\nas = "{merged}"\n'
    responses = {"/a": answer(listed, headers={"cache-control": "max-age=60"}), "/b": answer(2)}
    assert (await compose(text, responses)).result.cache_control == caching


async def test_an_answer_that_sets_a_cookie_is_private() -> None:
    text = TWO + "[routes.answer]\nforward_cookies = { a = ['session'] }\n"
    public = {"cache-control": "public, max-age=60"}
    setting = public | {"set-cookie": "session=1"}
    both = answer(2, headers=public)
    assert (await compose(text, {"/a": answer(1, headers=setting), "/b": both})).result.cache_control == (
        "private, max-age=60"
    )
    other = public | {"set-cookie": "track=1"}
    for headers in (public, other):
        ran = await compose(text, {"/a": answer(1, headers=headers), "/b": both})
        assert ran.result.cache_control == "public, max-age=60"
