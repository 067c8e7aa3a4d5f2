"""Each scripted answer and failure, as the gateway meets it in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.support.testing.pages import one_call, page
from umbel.testing import (
    GatewayClient,
    UnscriptedRequestError,
    UpstreamRequest,
    content,
    delay,
    fail,
    gateway,
    hang,
    json,
    sse,
    stream,
    text,
)

PROXY = '[upstreams.u]\nurls = ["http://u"]\n[[routes]]\npath = "/<path:rest>"\nproxy.upstream = "u"\n'


async def test_a_json_answer_has_its_value_status_and_fields(autojump_clock: MockClock) -> None:
    async with gateway(PROXY, {"u": json({"a": 1}, 201, headers={"location": "/made"})}) as client:
        reply = await client.post("/things", json={"b": 2})
    assert (reply.status_code, reply.json(), reply.headers["location"]) == (201, {"a": 1}, "/made")
    (asked,) = client.received("u")
    assert (asked.method, asked.path, asked.json(), asked.url.host) == ("POST", "/things", {"b": 2}, "u")


async def test_texts_and_bytes_arrive_as_they_are(autojump_clock: MockClock) -> None:
    answers = {"/text": text("grüße"), "/bytes": content(b"\x00\x01", 203, headers={"content-type": "image/x"})}
    async with gateway(PROXY, {"u": answers}) as client:
        reply = await client.get("/text")
        assert (reply.text, reply.headers["content-type"]) == ("grüße", "text/plain; charset=utf-8")
        reply = await client.get("/bytes")
        assert (reply.content, reply.status_code, reply.headers["content-type"]) == (b"\x00\x01", 203, "image/x")
        assert (await client.head("/text")).headers["content-length"] == "7"


async def test_a_delay_takes_virtual_time(autojump_clock: MockClock) -> None:
    async with gateway(page(), {"users": delay(0.25).then(json(1)), "orders": delay(1.5).then(json(2))}) as client:
        began = trio.current_time()
        assert (await client.get("/page/7")).json() == {"profile": 1, "orders": 2}
        assert trio.current_time() - began == 1.5
    assert {name: call.end for name, call in client.trace().calls.items()} == {"profile": 0.25, "orders": 1.5}


async def test_answers_follow_one_another_and_the_last_is_repeated(autojump_clock: MockClock) -> None:
    async with gateway(PROXY, {"u": text("a").times(2).then(text("b"))}) as client:
        assert [(await client.get("/x")).text for _ in range(4)] == ["a", "a", "b", "b"]


async def test_a_hanging_upstream_is_cut_at_the_deadline(autojump_clock: MockClock) -> None:
    async with gateway(page(), {"users": json(1), "orders": hang()}) as client:
        reply = await client.get("/page/7")
    assert (reply.json(), reply.headers["umbel-completed"]) == ({"profile": 1, "orders": []}, "false")
    assert client.trace().duration == 2
    assert client.trace().outcomes == {"profile": "ok", "orders": "timeout"}


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("connect", "connect", 502),
        ("connect-timeout", "connect", 502),
        ("dns", "dns", 502),
        ("tls", "tls", 502),
        ("reset", "reset", 502),
        ("timeout", "timeout", 504),
        ("malformed", "malformed", 502),
        ("too-big", "too-big", 502),
        ("bad-body", "bad-body", 502),
    ],
)
async def test_each_failure_gives_its_kind(name: str, kind: str, status: int, autojump_clock: MockClock) -> None:
    failing = fail(name)  # type: ignore[arg-type]  # one of the names
    async with gateway(one_call(upstream="connect_timeout = '3s'"), {"u": failing}) as client:
        assert (await client.get("/")).status_code == status
        trace = client.trace()
    assert (trace.kind, trace.outcomes) == (kind, {"it": kind})
    assert trace.duration == {"connect-timeout": 3, "timeout": 10}.get(name, 0)


async def test_a_failure_of_connecting_can_follow_an_answer_on_a_kept_connection(autojump_clock: MockClock) -> None:
    script = json(1).then(fail("connect")).then(json(2))
    async with gateway(one_call(), {"u": script}) as client:
        assert [(await client.get("/")).status_code for _ in range(3)] == [200, 502, 200]
    assert [trace.kind for trace in client.traces()] == [None, "connect", None]
    assert len(client.received("u")) == 2


async def test_calls_at_the_same_time_take_turns_of_their_own(autojump_clock: MockClock) -> None:
    """Both dial before a request has arrived; trio decides which of them is the first."""
    config = one_call("optional = true") + '[routes.calls.two]\nupstream = "u"\npath = "/two"\noptional = true\n'
    async with gateway(config, {"u": json(1).then(fail("connect"))}) as client:
        await client.get("/")
    assert sorted(client.trace().outcomes.values()) == ["connect", "ok"]


async def test_a_request_does_not_take_a_failure_of_connecting(autojump_clock: MockClock) -> None:
    script = json(1).then(json(2)).then(fail("dns")).then(json(3))
    replies: list[int] = []

    async def ask() -> None:
        replies.append((await client.get("/")).status_code)

    async with gateway(one_call(), {"u": script}) as client:
        await ask()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert sorted(replies) == [200, 200, 200, 502]
        assert sorted(str(trace.kind) for trace in client.traces()) == ["None", "None", "None", "dns"]
        assert len(client.received("u")) == 3


async def test_a_reset_after_an_answer_is_no_reset_of_a_kept_connection(autojump_clock: MockClock) -> None:
    """The pool would send the request again by itself, and the call would not see the reset."""
    async with gateway(one_call(), {"u": json(1).then(fail("reset")).then(json(2))}) as client:
        assert [(await client.get("/")).status_code for _ in range(3)] == [200, 502, 200]
    assert [trace.kind for trace in client.traces()] == [None, "reset", None]


async def test_a_stream_comes_piece_by_piece(autojump_clock: MockClock) -> None:
    async with gateway(PROXY, {"u": stream("one", delay(1), b"two", delay(2), "three")}) as client:
        began = trio.current_time()
        async with client.stream("GET", "/x") as reply:
            pieces = [(piece, trio.current_time() - began) async for piece in reply.aiter_raw()]
    assert pieces == [(b"one", 0), (b"two", 1), (b"three", 3)]


async def test_events_come_one_by_one(autojump_clock: MockClock) -> None:
    async with gateway(PROXY, {"u": sse("hello", delay(5), {"event": "end", "data": "bye"})}) as client:
        reply = await client.get("/x")
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.text == "data: hello\n\nevent: end\ndata: bye\n\n"
    assert client.trace().duration == 5


async def test_a_stream_that_breaks_off_breaks_the_answer(autojump_clock: MockClock) -> None:
    async with gateway(PROXY, {"u": stream(b"part", delay(1), fail("reset"))}) as client:
        with pytest.raises(httpx.TransportError):
            await client.get("/x")
    trace = client.trace()
    assert (trace.outcome, trace.kind, trace.duration) == ("failed", "reset", 1)


async def test_a_client_that_leaves_a_hanging_stream_is_seen(autojump_clock: MockClock) -> None:
    async with gateway(PROXY, {"u": stream(b"part", hang())}) as client:
        async with client.stream("GET", "/x") as reply:
            assert reply.status_code == 200
            await trio.sleep(3)
        trace = client.trace()
    assert (trace.outcome, trace.kind, trace.duration) == ("cancelled", "client-gone", 3)


async def test_a_function_answers_by_the_request(autojump_clock: MockClock) -> None:
    async def users(request: UpstreamRequest) -> object:
        await trio.sleep(0.5)
        return json({"id": request.path.rpartition("/")[2]})

    def orders(request: UpstreamRequest) -> httpx.Response:
        return httpx.Response(200, json=[request.params["id"]])

    async with gateway(page(), {"users": users, "orders": orders}) as client:  # type: ignore[dict-item]  # object
        assert (await client.get("/page/7")).json() == {"profile": {"id": "7"}, "orders": ["7"]}
    assert [request.at for request in client.received("users")] == [0]


async def test_a_function_may_fail_and_may_stand_in_a_script(autojump_clock: MockClock) -> None:
    script = json(1).then(lambda request: delay(1).then(fail("malformed")))
    async with gateway(one_call(), {"u": script}) as client:
        assert [(await client.get("/")).status_code for _ in range(2)] == [200, 502]
    assert (client.trace().kind, client.trace().duration) == ("malformed", 1)


async def test_a_function_may_return_a_streamed_response_of_httpx(autojump_clock: MockClock) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        await trio.sleep(1)
        yield b"two"

    async with gateway(PROXY, {"u": lambda request: httpx.Response(200, content=pieces())}) as client:
        assert (await client.get("/x")).text == "onetwo"


async def test_paths_have_answers_of_their_own(autojump_clock: MockClock) -> None:
    answers = {"/a": text("one").then(text("two")), "POST /a": text("made"), "/b": text("b")}
    async with gateway(PROXY, {"u": answers}) as client:
        assert [(await client.get("/a")).text, (await client.get("/b")).text] == ["one", "b"]
        assert [(await client.post("/a")).text, (await client.get("/a")).text] == ["made", "two"]


async def ask_for(client: GatewayClient, path: str) -> None:
    await client.get(path)
    raise AssertionError("the request was answered")


async def test_a_path_without_an_answer_ends_the_test(autojump_clock: MockClock) -> None:
    with pytest.raises(UnscriptedRequestError, match="no answer for GET /b; it has answers for /a"):
        async with gateway(PROXY, {"u": {"/a": text("a")}}) as client:
            await ask_for(client, "/b")


async def test_an_upstream_without_a_script_ends_the_test(autojump_clock: MockClock) -> None:
    with pytest.raises(UnscriptedRequestError, match="'orders' was called"):
        async with gateway(page(), {"users": json(1)}) as client:
            await ask_for(client, "/page/7")


async def test_an_exception_of_a_function_ends_the_test(autojump_clock: MockClock) -> None:
    async def wrong(request: UpstreamRequest) -> httpx.Response:
        assert request.path == "/other"
        return httpx.Response(204)

    with pytest.raises(AssertionError, match="/other"):
        async with gateway(PROXY, {"u": wrong}) as client:
            await ask_for(client, "/x")


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [({"a": 1}, TypeError, "it must return an answer"), (fail("dns"), ValueError, "no function can return it")],
)
async def test_a_function_that_returns_no_answer_ends_the_test(
    returned: object, error: type[Exception], message: str, autojump_clock: MockClock
) -> None:
    with pytest.raises(error, match=message):
        async with gateway(PROXY, {"u": lambda request: returned}) as client:  # type: ignore[dict-item,return-value]
            await ask_for(client, "/x")


async def test_a_large_body_reaches_the_upstream_whole(autojump_clock: MockClock) -> None:
    body = b"0123456789" * 50_000
    async with gateway(PROXY, {"u": lambda request: content(request.content)}) as client:
        reply = await client.put("/x", content=body)
    assert reply.content == body
