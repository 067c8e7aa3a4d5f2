"""Every fault of an upstream over sockets: its kind, and that nothing is left."""

from __future__ import annotations

import gzip
import os
import random
import socket
import tracemalloc
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.upstream.bad_upstreams import (
    BAD_ANSWERS,
    CHUNKED,
    CODED,
    ENDLESS,
    HEAD,
    drip_body,
    drip_head,
    endless_interim,
)
from tests.support.upstream.calls import Caller, calling, url
from tests.support.upstream.raw_server import Handler, Peer, answering, open_sockets, raw_server, response, silent
from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import Kind
from umbel.upstream.calls.failure_kind import CLIENT_GONE


@pytest.mark.parametrize(("answer", "close", "kind", "proxy_error"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_a_malformed_response_has_its_kind_and_its_connection_is_closed(
    answer: bytes, close: bool, kind: Kind, proxy_error: str
) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer)
        if not close:
            await peer.closed()

    async with raw_server(handler) as server, calling(url(server), max_body="100KB") as caller:
        await caller.fails(kind, proxy_error)
        await server.all_closed()
        pool = caller.client.statistics().pool
        assert pool.idle == 0


@pytest.mark.parametrize(("coding", "body", "proxy_error"), CODED.values(), ids=CODED)
async def test_an_unsupported_content_coding_is_malformed(coding: bytes, body: bytes, proxy_error: str) -> None:
    answer = response(body, b"Content-Encoding: " + coding)
    async with raw_server(answering(answer)) as server, calling(url(server)) as caller:
        for _ in range(2):
            await caller.fails(Kind.MALFORMED, proxy_error)
        # The message itself was complete, so the connection is reused.
        assert len(server.connections) == 1


@pytest.mark.parametrize("sent", [b"", HEAD + b"Content-Le", HEAD + b"Content-Length: 9\r\n\r\nhalf"])
async def test_a_reset_before_or_within_the_response_has_the_kind_reset(sent: bytes) -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        if sent:
            await peer.send(sent)
            await go.wait()
        peer.reset()

    go = trio.Event()
    async with raw_server(handler) as server, calling(url(server)) as caller, trio.open_nursery() as nursery:
        nursery.start_soon(_soon, go)
        error = await caller.fails(Kind.RESET, "connection_terminated")
        assert getattr(error, "untouched") is (sent == b"")  # noqa: B009 - of the subclass


async def _soon(event: trio.Event) -> None:
    # By then the client has read what was sent; a reset may overtake it otherwise.
    await trio.sleep(0.02)
    event.set()


async def test_a_port_without_a_listener_is_a_refused_connect() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with calling(f"http://127.0.0.1:{unused.getsockname()[1]}") as caller:
            await caller.fails(Kind.CONNECT, "connection_refused")


async def test_a_name_without_an_address_is_a_dns_failure() -> None:
    class NoNames(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object) -> list:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *args: object) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(NoNames())
    async with calling("http://nowhere.example") as caller:
        await caller.fails(Kind.DNS, "dns_error")


async def test_a_silent_name_service_is_a_dns_timeout_within_the_connect_timeout() -> None:
    class Silent(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *args: object) -> list:
            await trio.sleep_forever()
            raise AssertionError

        async def getnameinfo(self, *args: object) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Silent())
    async with calling("http://nowhere.example", connect_timeout="50ms") as caller:
        await caller.fails(Kind.DNS, "dns_timeout")


async def test_a_listener_whose_queue_is_full_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        async with calling(f"http://127.0.0.1:{port}", connect_timeout="100ms") as caller:
            await caller.fails(Kind.CONNECT, "connection_timeout")
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "224.0.0.1", "[::ffff:169.254.169.254]"])
async def test_link_local_and_multicast_addresses_are_never_connected_to(host: str) -> None:
    async with calling(f"http://{host}") as caller:
        await caller.fails(Kind.CONNECT, "destination_ip_prohibited")


async def test_public_only_refuses_loopback_without_a_connect() -> None:
    async with raw_server(silent) as server:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            async with calling(url(server, host=host), public_only=True) as caller:
                await caller.fails(Kind.CONNECT, "destination_ip_prohibited")
        assert server.connections == []


@pytest.mark.parametrize("script", [silent, drip_head, drip_body, endless_interim])
@pytest.mark.parametrize(("reason", "kind"), [("deadline", Kind.TIMEOUT), (CLIENT_GONE, Kind.CLIENT_GONE)])
async def test_a_cancelled_call_to_an_upstream_that_never_ends_leaves_nothing(
    script: Handler, reason: str, kind: Kind
) -> None:
    async with raw_server(script) as server, calling(url(server)) as caller:
        # The composition's scope: the whole call is limited, not each read.
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_later, scope, reason)
                await caller.call(budget=0.1)
        assert scope.cancelled_caught
        await server.all_closed()
        assert [each.kind for each in caller.attempts] == [kind]


async def _cancel_later(scope: trio.CancelScope, reason: str) -> None:
    await trio.sleep(0.101)
    scope.cancel(reason=reason)


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
async def test_an_endless_body_stops_at_the_limit(script: Handler) -> None:
    async with raw_server(script) as server, calling(url(server), max_body="100KB") as caller:
        await caller.fails(Kind.TOO_BIG, "http_response_body_size")
        await server.all_closed()


async def test_a_gzip_bomb_stops_at_the_limit_with_less_than_three_times_its_memory() -> None:
    bomb = gzip.compress(bytes(160 * 2**20))
    limit = 4 * 2**20

    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb))
        await peer.send(bomb)
        await peer.closed()

    async with raw_server(handler) as server, calling(url(server), max_body="4MiB") as caller:
        tracemalloc.start()
        try:
            await caller.fails(Kind.TOO_BIG, "http_response_body_size")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 3 * limit
        await server.all_closed()


GOOD: dict[str, tuple[bytes, int, bytes]] = {
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    "301": (b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n", 301, b""),
    "100 and 103 before": (b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: </a>\r\n\r\n" + response(b"ok"), 200, b"ok"),
    "html": (response(b"<html>", b"Content-Type: text/html"), 200, b"<html>"),
    "503": (response(b"no", status=b"503 Unavailable"), 503, b"no"),
    "gzip": (response(gzip.compress(b"ok"), b"Content-Encoding: gzip"), 200, b"ok"),
}


@pytest.mark.parametrize(("answer", "status", "body"), GOOD.values(), ids=GOOD)
async def test_an_unusual_but_valid_response_is_used_and_its_connection_kept(
    answer: bytes, status: int, body: bytes
) -> None:
    async with raw_server(answering(answer)) as server, calling(url(server)) as caller:
        for _ in range(3):
            got = await caller.call()
            assert (got.status_code, got.content) == (status, body)
        assert len(server.connections) == 1


async def test_a_response_to_head_has_no_body_with_any_content_length() -> None:
    async with raw_server(answering(HEAD + b"Content-Length: 500\r\n\r\n")) as server, calling(url(server)) as caller:
        for _ in range(3):
            assert (await caller.call(method="HEAD")).content == b""
        assert len(server.connections) == 1


@pytest.mark.parametrize(
    "head", [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", HEAD + b"Connection: close\r\n\r\n"]
)
async def test_a_body_without_a_length_ends_with_the_connection(head: bytes) -> None:
    async with raw_server(answering(head + b"until the end", close=True)) as server, calling(url(server)) as caller:
        for _ in range(2):
            assert (await caller.call()).content == b"until the end"
        assert len(server.connections) == 2


async def test_trailers_and_hop_by_hop_fields_are_removed() -> None:
    answer = (
        HEAD + b"Transfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\n"
        b"2\r\nok\r\n0\r\nSet-Cookie: session=stolen\r\n\r\n"
    )
    async with raw_server(answering(answer)) as server, calling(url(server)) as caller:
        got = await caller.call()
        assert (got.content, dict(got.headers)) == (b"ok", {"x-end": "2"})


async def test_cookies_are_neither_stored_nor_sent() -> None:
    answer = response(b"ok", b"Set-Cookie: session=1; Path=/")
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        while head := await peer.read_head():
            seen.append(head)
            await peer.send(answer)

    async with raw_server(handler) as server, calling(url(server)) as caller:
        for _ in range(2):
            await caller.call()
    assert len(seen) == 2
    assert not any(b"cookie" in head.lower() for head in seen)


async def test_no_environment_variable_changes_the_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(answering(response(b"direct"))) as server, raw_server(answering(response(b"proxy"))) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, url(proxy))
        async with calling(url(server)) as caller:
            assert (await caller.call()).content == b"direct"
        assert proxy.connections == []


async def test_a_thousand_responses_with_excess_bytes_are_never_mixed() -> None:
    rng = random.Random(7)
    secret = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECRET"
    kinds = [b"x", b"\r\n", secret, b"HTTP/1.1 ", b"0\r\n\r\n", os.urandom(9), b""]

    async def handler(peer: Peer) -> None:
        while head := await peer.read_head():
            body = head.split(b" ")[1]
            garbage = rng.choice(kinds)
            if rng.random() < 0.5:
                await peer.send(response(body) + garbage)
            else:
                await peer.send(CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + garbage)

    async with raw_server(handler) as server, calling(url(server)) as caller:
        for number in range(1000):
            target = b"/%d" % number
            assert (await caller.call(target)).content == target
        pool = caller.client.statistics().pool
        assert pool.excess > 500
        assert pool.opened >= pool.excess


async def test_a_late_second_response_is_found_before_the_next_request() -> None:
    sent = trio.Event()

    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"mine"))
        await trio.sleep(0.01)
        await peer.send(response(b"someone else's"))
        sent.set()
        await peer.closed()

    async with raw_server(handler) as server, calling(url(server)) as caller:
        for _ in range(3):
            assert (await caller.call()).content == b"mine"
            await sent.wait()
            sent = trio.Event()
        assert caller.client.statistics().pool.stale == 2


async def test_a_kept_connection_closed_in_use_is_replaced_for_get_and_not_for_post() -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"ok"))
        # It closes when a request is already on its way: the race, made certain.
        await peer.read_request()
        peer.reset()

    async with raw_server(handler) as server, calling(url(server)) as caller:
        assert (await caller.call()).content == b"ok"
        await caller.fails(Kind.RESET, "connection_terminated", method="POST", content=b"pay")
        assert len(server.connections) == 1
        for _ in range(10):
            assert (await caller.call()).content == b"ok"
        pool = caller.client.statistics().pool
        assert (pool.replaced, len(server.connections)) == (9, 11)
        # What was learned: this server closes at once what is idle. So the next POST, once the kept connection has been
        # idle for as long as that took, has a connection of its own.
        await wait_all_tasks_blocked(0.05)
        assert (await caller.call(method="POST", content=b"pay")).content == b"ok"
        assert len(server.connections) == 12


async def test_an_early_response_to_a_large_body_is_used_though_the_rest_is_unsent() -> None:
    async def handler(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response(b"too large", status=b"413 Too Large"))
        # Read no more; closing with bytes unread is a reset for the client.

    async with raw_server(handler) as server, calling(url(server)) as caller:
        for _ in range(20):
            got = await caller.call(method="POST", content=bytes(8 * 2**20))
            assert (got.status_code, got.content) == (413, b"too large")


async def test_a_replica_that_is_down_gets_few_attempts() -> None:
    ends = {}
    async with raw_server(answering(response(b"a"))) as a, raw_server(answering(response(b"b"))) as b:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            down = f"http://127.0.0.1:{unused.getsockname()[1]}"
            async with calling(url(a), down, url(b) + "/base/") as caller:
                for _ in range(60):
                    try:
                        end: object = (await caller.call()).content
                    except UpstreamError as error:
                        end = error.kind
                    ends.setdefault((caller.attempts[0].replica, end), []).append(caller)
    assert set(ends) == {(url(a), b"a"), (url(b) + "/base", b"b"), (down, Kind.CONNECT)}
    # Once in a tenth of a second; ejected for half a minute after five failures.
    assert len(ends[down, Kind.CONNECT]) <= 5


async def test_the_upstream_receives_exactly_the_encoded_request() -> None:
    seen: list[bytes] = []

    async def handler(peer: Peer) -> None:
        head, body = await peer.read_request()
        seen.append(head + body)
        await peer.send(response(b"ok"))

    async with raw_server(handler) as server, calling(url(server) + "/base") as caller:
        await caller.call(b"/a%2Fb?x=1", method="POST", content=b"body", budget=5.0, headers={"x-a": "1"})
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == "POST /base/a%2Fb?x=1 HTTP/1.1"
    fields = dict(line.split(": ", 1) for line in lines[1:-2])
    parent = fields.pop("traceparent")
    left = int(fields.pop("x-envoy-expected-rq-timeout-ms"))
    assert fields == {
        "Host": f"127.0.0.1:{int(server)}",
        "x-a": "1",
        "accept-encoding": "gzip",
        "Content-Length": "4",
    }
    assert parent.startswith("00-" + "1" * 32 + "-")
    assert 4000 < left <= 5000
    assert lines[-1] == "body"


async def test_an_upstream_may_be_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "upstream.sock")
    async with raw_server(answering(response(b"ok")), uds=path) as server, calling(f"unix:{path}") as caller:
        for _ in range(3):
            assert (await caller.call()).content == b"ok"
        assert len(server.connections) == 1
    async with calling(f"unix:{tmp_path}/nobody.sock") as caller:
        await caller.fails(Kind.CONNECT, "destination_unavailable")


async def test_five_hundred_calls_cancelled_at_random_leave_nothing() -> None:
    async def handler(peer: Peer) -> None:
        rng = random.Random(peer.number)
        while await peer.read_head():
            await trio.sleep(rng.random() * 0.01)
            await peer.send(HEAD + b"Content-Length: 200\r\n\r\n" + b"x" * 100)
            await trio.sleep(rng.random() * 0.01)
            await peer.send(b"x" * 100)

    async def come_and_go(caller: Caller, rng: random.Random) -> None:
        with trio.CancelScope() as scope:
            scope.deadline = trio.current_time() + rng.random() * 0.1
            assert len((await caller.call()).content) == 200

    before = open_sockets()
    async with raw_server(handler) as server, calling(url(server), max_concurrency=20, max_queue=500) as caller:
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(come_and_go, caller, random.Random(number))
        caller.assert_nothing_left()
        # Every slot is free: as many calls as there are slots go through at once.
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(caller.call)
        assert caller.client.statistics().pool.idle <= 20
    assert open_sockets() == before
