"""Splits and mirrors of proxy routes."""

from __future__ import annotations

import pytest
import trio

from tests.support.gateway.proxies import proxied
from tests.support.server.serving import connected, fetch
from tests.support.upstream.raw_server import Handler, Peer, answering, raw_server, response

HOOKS = pytest.mark.parametrize("hooks", ["auto", "all"])


def named(name: bytes) -> Handler:
    """A handler that answers with its name."""

    async def answer(peer: Peer) -> None:
        while (await peer.read_request())[0]:
            await peer.send(response(name, b"cache-control: max-age=60"))

    return answer


@HOOKS
async def test_a_split_sends_equal_keys_to_one_upstream_and_shares_by_their_size(hooks: str) -> None:
    async with raw_server(named(b"v2")) as other:
        others = {"v2": {"urls": [f"http://127.0.0.1:{int(other)}"]}}
        options = {"split": {"v2": "50%"}, "split_key": "headers.x_user"}
        async with proxied(named(b"v1"), hooks=hooks, others=others, **options) as it:
            got = {}
            for user in range(40):
                replies = [await fetch(it.port, "GET", "/a", [("x-user", str(user))]) for _ in range(2)]
                assert replies[0].body == replies[1].body
                got[user] = replies[0].body
                assert replies[0]["vary"] == "X-User"

    assert 8 <= [*got.values()].count(b"v2") <= 32


async def test_a_split_by_the_address_of_the_client_makes_the_response_private() -> None:
    others = {"v2": {"urls": ["http://127.0.0.1:1"]}}
    options = {"split": {"v2": "0%"}, "split_key": "client.ip"}
    async with proxied(named(b"v1"), others=others, **options) as it:
        reply = await fetch(it.port, "GET", "/a")

    assert reply.all("cache-control") == ["private, max-age=60"]


@HOOKS
async def test_a_mirror_gets_copies_of_requests_that_came_whole_and_never_delays(hooks: str) -> None:
    copied: list[bytes] = []
    came = trio.Event()

    async def hanging(peer: Peer) -> None:
        head, body = await peer.read_request()
        copied.append(head.partition(b"\r\n")[0] + b" " + body)
        if len(copied) == 2:
            came.set()
        await peer.closed()

    async with raw_server(hanging) as other:
        others = {"v2": {"urls": [f"http://127.0.0.1:{int(other)}"]}}
        mirror = {"upstream": "v2", "share": "100%", "methods": ["GET", "POST"]}
        async with proxied(named(b"v1"), hooks=hooks, others=others, mirror=mirror) as it:
            replies = [await fetch(it.port, "GET", "/a?x=1"), await fetch(it.port, "DELETE", "/a")]
            replies.append(await fetch(it.port, "POST", "/b", body=b"whole"))
            with trio.fail_after(5):
                await came.wait()

    assert [reply.body for reply in replies] == [b"v1"] * 3
    assert sorted(copied) == [b"GET /a?x=1 HTTP/1.1 ", b"POST /b HTTP/1.1 whole"]


@HOOKS
async def test_a_mirror_gets_no_copy_of_a_request_that_its_upstream_has_answered(hooks: str) -> None:
    asked: list[bytes] = []

    async def second(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            asked.append(request[0].partition(b" ")[0])
            await peer.send(response(b"v2"))

    async with raw_server(second) as other:
        others = {"v2": {"urls": [f"http://127.0.0.1:{int(other)}"]}}
        options = {"split": {"v2": "100%"}, "mirror": {"upstream": "v2", "share": "100%"}}
        async with proxied(named(b"v1"), hooks=hooks, others=others, **options) as it:
            replies = [await fetch(it.port, "GET", "/a") for _ in range(3)]

    assert [reply.body for reply in replies] == [b"v2"] * 3
    assert asked == [b"GET"] * 3


@HOOKS
@pytest.mark.parametrize(("body", "asked"), [(b"", 2), (b"whole", 1), (b"x" * 100_000, 1)])
async def test_a_request_with_a_body_is_not_retried_after_it_was_sent(hooks: str, body: bytes, asked: int) -> None:
    seen: list[int] = []

    async def busy(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            seen.append(len(request[1]))
            await peer.send(response(b"busy", status=b"503 Busy"))

    async with proxied(busy, hooks=hooks, more={"retry": {"attempts": 2}}) as it:
        reply = await fetch(it.port, "PUT", "/a", body=body)

    assert (reply.status, reply.body) == (503, b"busy")
    assert seen == [len(body)] * asked


@HOOKS
async def test_a_mirror_gets_the_fields_that_the_upstream_gets(hooks: str) -> None:
    heads: dict[bytes, bytes] = {}
    came = trio.Event()

    def keeping(name: bytes) -> Handler:
        async def answer(peer: Peer) -> None:
            while head := (await peer.read_request())[0]:
                heads[name] = head
                await peer.send(response(name))
                if len(heads) == 2:
                    came.set()

        return answer

    async with raw_server(keeping(b"v2")) as other:
        others = {"v2": {"urls": [f"http://127.0.0.1:{int(other)}"]}}
        mirror = {"upstream": "v2", "share": "100%"}
        options = {"others": others, "mirror": mirror, "preserve_host": True}
        async with proxied(keeping(b"v1"), hooks=hooks, **options) as it:
            sent = [("accept-encoding", "br;q=0.5, identity"), ("te", "trailers"), ("connection", "te"), ("x-a", "1")]
            await fetch(it.port, "GET", "/a", sent)
            with trio.fail_after(5):
                await came.wait()

    def lines(name: bytes) -> list[bytes]:
        return sorted(line for line in heads[name].split(b"\r\n") if not line.startswith(b"traceparent: "))

    assert lines(b"v2") == lines(b"v1")
    assert b"accept-encoding: br;q=0.5, identity" in lines(b"v2")


async def test_the_interim_responses_of_an_upstream_that_fails_do_not_reach_the_client() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: <%b>\r\n\r\n"

    async def breaking(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(early % b"one")

    async with raw_server(answering(early % b"two" + response(b"ok"))) as other:
        others = {"v2": {"urls": [f"http://127.0.0.1:{int(other)}"]}}
        async with proxied(breaking, others=others, fallback=["v2"]) as it, connected(it.port) as client:
            await client.stream.send_all(b"GET /a HTTP/1.1\r\nhost: gateway.test\r\nconnection: close\r\n\r\n")
            received = b""
            while data := await client.stream.receive_some():
                received += data

    assert received.startswith(b"HTTP/1.1 103 ")
    assert received.endswith(b"\r\n\r\nok")
    assert (received.count(b"<one>"), received.count(b"<two>")) == (0, 1)
