"""``redirects`` of a call or an upstream: a redirect fails, is the answer, or is followed by another request."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.composition.composing import Handler, Scripted, answer, by_path, compose, config, facts
from tests.support.logs.records import Records
from umbel.composition.gather import Compose, CompositionFailedError
from umbel.composition.plan.warnings import warn
from umbel.composition.request.code_request import UpstreamDefaults
from umbel.config.schema.sections import Upstream
from umbel.core.model import Inputs


def redirects(location: str, status: int = 302) -> Handler:
    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            status, headers={"location": location, "retry-after": "3", "set-cookie": "s=1"}, content=b"{}"
        )

    return handler


def route(more: str = "") -> str:
    return f'[routes.calls.a]\nupstream = "u"\npath = "/a"\n{more}'


FOLLOW = route('redirects = "follow"\n')


async def test_a_followed_redirect_gives_the_value_of_its_target() -> None:
    ran = await compose(FOLLOW, {"/a": redirects("/b?x=1"), "/b": answer({"found": True})})
    assert ran.result.answer == {"a": {"found": True}}
    assert ran.upstream.targets == ["/a", "/b?x=1"]


async def test_each_item_follows_its_own_redirects() -> None:
    text = '[routes.calls.a]\nupstream = "u"\npath = "/{item}"\neach = "`[1, 2]`"\nredirects = "follow"\n'
    ran = await compose(text, {"/1": redirects("/b"), "/2": answer("two"), "/b": answer("b")})
    assert ran.result.answer == {"a": ["b", "two"]}


async def test_a_redirect_that_is_not_followed_fails_with_the_reason_in_its_record() -> None:
    ran = await compose(FOLLOW, {"/a": redirects("http://evil.test/"), "/b": answer(1)})
    failure = ran.result.failure
    assert failure is not None
    assert (failure.status, failure.received_status, ran.upstream.targets) == (502, 302, ["/a"])
    assert failure.detail == (
        "the upstream answered 302; the redirect was not followed: its Location names another origin"
    )
    assert "evil" not in str(ran.result.problem("id").document())


async def test_a_loop_ends_with_the_sixth_redirect(autojump_clock: trio.abc.Clock) -> None:
    ran = await compose(FOLLOW, {"/a": redirects("/b"), "/b": redirects("/a")})
    assert ran.result.failure is not None
    assert (ran.result.failure.status, len(ran.upstream.targets)) == (502, 6)
    assert "followed 5 already" in ran.result.failure.detail


async def test_a_loop_ends_with_the_time_of_the_call(autojump_clock: trio.abc.Clock) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await trio.sleep(2)
        return httpx.Response(302, headers={"location": "/a"})

    ran = await compose(FOLLOW + 'timeout = "3s"\noptional = true\ndefault = 0\n', {"/a": slow})
    assert (ran.result.answer, ran.elapsed, len(ran.upstream.targets)) == ({"a": 0}, 3, 2)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_passed_redirect_is_the_answer_with_its_location(status: int) -> None:
    ran = await compose(route('redirects = "pass"\n'), {"/a": redirects("/b", status)})
    failure = ran.result.failure
    assert failure is not None
    assert (failure.status, ran.upstream.targets) == (status, ["/a"])
    assert ran.result.headers == (("location", "/b"), ("retry-after", "3"))
    assert ran.result.completed


@pytest.mark.parametrize("key", ['redirects = "pass"\n', "pass_status = [302]\n"])
async def test_a_passed_redirect_without_a_location_is_502(key: str) -> None:
    ran = await compose(route(key), {"/a": redirects("")})
    failure = ran.result.failure
    assert failure is not None
    assert (failure.status, ran.result.headers) == (502, ())
    assert failure.detail == "the upstream answered 302; it has no Location"
    assert not ran.result.completed
    ran = await compose(route(key.replace("302", "300")), {"/a": redirects("", 300)})
    assert ran.result.failure is not None
    assert ran.result.failure.status == 300


@pytest.mark.parametrize(("fields", "status"), [({"allow": "GET"}, 405), ({}, 502)])
async def test_a_passed_405_has_the_allow_of_the_upstream_or_becomes_502(fields: dict[str, str], status: int) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(405, headers=fields, content=b"{}")

    ran = await compose(route("pass_status = [405]\n"), {"/a": handler})
    failure = ran.result.failure
    assert failure is not None
    assert (failure.status, failure.received_status, ran.result.headers) == (status, 405, tuple(fields.items()))


async def test_pass_keeps_the_other_passed_statuses_and_304_is_none_of_them() -> None:
    text = route('redirects = "pass"\npass_status = [404]\n')
    ran = await compose(text, {"/a": answer({}, status=404)})
    assert ran.result.failure is not None
    assert ran.result.failure.status == 404
    ran = await compose(route('redirects = "pass"\n'), {"/a": answer({}, status=304)})
    assert ran.result.failure is not None
    assert ran.result.failure.status == 502


@pytest.mark.parametrize(("own", "targets"), [("", ["/a", "/b"]), ('redirects = "fail"\n', ["/a"])])
async def test_the_redirects_of_a_call_replace_those_of_its_upstream(own: str, targets: list[str]) -> None:
    text = '[upstreams.u]\nurls = ["http://h"]\nredirects = "follow"\n[[routes]]\npath = "/r/<id>"\n' + route(own)
    ran = await compose(text, {"/a": redirects("/b"), "/b": answer(1)})
    assert ran.upstream.targets == targets


async def test_calls_in_code_take_the_option_and_the_default_of_the_upstream() -> None:
    upstream = Scripted(by_path({"/a": redirects("/b"), "/b": answer("b")}))
    defaults = {"u": UpstreamDefaults.of("u", Upstream(urls=("http://h",), redirects="follow"))}
    made = Compose({"u": upstream}, Inputs(), facts(), Records(), defaults)
    async with made.gather() as g:
        followed = g.get("u", "/a")
    assert followed.value == "b"
    with pytest.raises(CompositionFailedError) as caught:
        async with made.gather() as g:
            g.get("u", "/a", redirects="pass")
    assert caught.value.result.failure is not None
    assert caught.value.result.failure.status == 302
    async with made.gather() as g:
        with pytest.raises(TypeError, match="redirects must be fail, pass or follow"):
            g.get("u", "/a", redirects="always")  # type: ignore[typeddict-item]


def test_coalesce_beside_follow_is_a_warning() -> None:
    text = '[[routes]]\npath = "/r"\n' + route('redirects = "follow"\ncoalesce = true\n')
    reason = "has no effect: a call that follows redirects is never coalesced"
    assert list(warn(config(text))) == [(("routes", 0, "calls", "a", "coalesce"), reason)]
