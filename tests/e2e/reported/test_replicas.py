"""Retries on another replica: an unsent request is retried with any method, a sent one only if that is safe."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme

from tests.support.composition.composing import facts
from tests.support.composition.over_sockets import ONE, configured
from tests.support.logs.records import Records
from tests.support.upstream.bad_upstreams import full, nobody
from tests.support.upstream.raw_server import Peer, RawServer, answering, raw_server, silent
from umbel.composition.gather import Compose, CompositionFailedError
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan_run import run
from umbel.config.schema.sections import Upstream
from umbel.core.failure_kinds import Kind
from umbel.core.model import Attempt, Inputs
from umbel.upstream import Client, Retry, Transport, build

RETRY = {"attempts": 3, "backoff": "1ms"}


class Names(trio.abc.HostnameResolver):
    """A resolver that finds no name."""

    async def getaddrinfo(self, host: bytes | None, port: object, *args: object) -> list[Any]:
        await trio.lowlevel.checkpoint()
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def getnameinfo(self, *args: object) -> tuple[str, str]:
        raise NotImplementedError


Dead = Callable[[AsyncExitStack], Awaitable[str]]
"""Makes the address of a replica to which no connection can be made."""


async def refusing(stack: AsyncExitStack) -> str:
    return f"127.0.0.1:{stack.enter_context(nobody())}"


async def not_accepting(stack: AsyncExitStack) -> str:
    return f"127.0.0.1:{stack.enter_context(full())}"


async def unknown(stack: AsyncExitStack) -> str:
    trio.socket.set_custom_hostname_resolver(Names())
    return "gone.example:80"


async def breaking_off(stack: AsyncExitStack) -> str:
    """The replica closes the connection during the TLS handshake."""

    async def handler(peer: Peer) -> None:
        await peer.stream.receive_some()

    return f"127.0.0.1:{int(await stack.enter_async_context(raw_server(handler)))}"


async def hanging(stack: AsyncExitStack) -> str:
    """The replica sends nothing in the TLS handshake."""
    return f"127.0.0.1:{int(await stack.enter_async_context(raw_server(silent)))}"


async def without_tls(stack: AsyncExitStack) -> str:
    async def handler(peer: Peer) -> None:
        await peer.stream.receive_some()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    return f"127.0.0.1:{int(await stack.enter_async_context(raw_server(handler)))}"


async def untrusted(stack: AsyncExitStack) -> str:
    """The replica has a certificate of an untrusted CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return f"127.0.0.1:{int(await stack.enter_async_context(raw_server(answering(ONE), tls=context)))}"


class Site:
    """An upstream with two replicas: a dead one, which gets the first attempt, and a live one."""

    def __init__(self, client: Client, live: RawServer, requests: list[bytes]) -> None:
        self.client = client
        self.live = live
        self.requests = requests
        """The request heads that the live replica received."""
        self.attempts: list[Attempt] = []


@asynccontextmanager
async def site(dead: Dead, folder: Path, *, tls: bool = False, **upstream: Any) -> AsyncIterator[Site]:
    requests: list[bytes] = []
    keys: dict[str, Any] = {"connect_timeout": "100ms", "balance": "round_robin", "retry": RETRY, **upstream}
    context = None
    if tls:
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        keys["tls"] = {"ca": str(folder / "ca.pem")}

    async def handler(peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            requests.append(request[0])
            await peer.send(ONE)

    with trio.fail_after(20):
        async with AsyncExitStack() as stack:
            scheme = "https" if tls else "http"
            url = await dead(stack)
            live = await stack.enter_async_context(raw_server(handler, tls=context))
            urls = [f"{scheme}://{each}" for each in (url, f"127.0.0.1:{int(live)}")]
            client = await stack.enter_async_context(build("u", Upstream(urls=urls, **keys)))
            yield Site(client, live, requests)


Way = Callable[[Client], Awaitable[tuple[Kind | int, list[Attempt]]]]
"""Makes a POST and returns its status or the kind of its failure, and its attempts."""


async def by_route(client: Client, **call: Any) -> tuple[Kind | int, list[Attempt]]:
    made = configured({"urls": ["http://a"]}, {"a": {"method": "POST", "json": "`1`", **call}})
    result = await run(compile_route(made, 0), Inputs(), facts(2.0), {"u": client}, Records())
    (outcome,) = result.outcomes
    return (outcome.failure.kind if outcome.failure else 200), list(outcome.attempts)


async def by_each(client: Client) -> tuple[Kind | int, list[Attempt]]:
    return await by_route(client, each="[`1`]", path="/a/{item}")


async def of_options(client: Client) -> tuple[Kind | int, list[Attempt]]:
    compose = Compose({"u": client}, Inputs(), facts(2.0), Records())
    try:
        async with compose.gather() as g:
            call = g.post("u", "/", json={"a": 1})
    except CompositionFailedError:
        pass
    failure = call.outcome.failure
    return (failure.kind if failure else 200), list(call.outcome.attempts)


WAYS = pytest.mark.parametrize("way", [by_route, by_each, of_options])
DEAD = pytest.mark.parametrize("dead", [refusing, not_accepting, unknown])
DEAD_TLS = pytest.mark.parametrize("dead", [refusing, breaking_off, hanging, without_tls, untrusted])


@WAYS
@DEAD
async def test_a_post_goes_to_another_replica_if_connecting_fails(dead: Dead, way: Way, tmp_path: Path) -> None:
    async with site(dead, tmp_path) as there:
        status, attempts = await way(there.client)
        assert (status, [attempt.cause for attempt in attempts]) == (200, ["first", "retry"])
        assert len(there.requests) == 1


@WAYS
@DEAD_TLS
async def test_a_post_goes_to_another_replica_if_the_tls_handshake_fails(dead: Dead, way: Way, tmp_path: Path) -> None:
    async with site(dead, tmp_path, tls=True) as there:
        status, attempts = await way(there.client)
        assert (status, [attempt.cause for attempt in attempts]) == (200, ["first", "retry"])
        assert len(there.requests) == 1


async def test_without_retry_the_call_fails(tmp_path: Path) -> None:
    async with site(refusing, tmp_path, retry=None) as there:
        status, attempts = await by_route(there.client)
        assert (status, len(attempts), there.requests) == (Kind.CONNECT, 1, [])


@pytest.mark.parametrize("dead", [untrusted, without_tls])
async def test_a_replica_with_a_permanent_tls_failure_is_not_tried_again(dead: Dead, tmp_path: Path) -> None:
    async with site(dead, tmp_path, tls=True) as there, AsyncExitStack() as stack:
        only = Upstream(urls=[f"https://{await dead(stack)}"], retry=RETRY)
        async with build("u", only) as client:
            status, attempts = await by_route(client)
        assert (status, len(attempts), there.requests) == (Kind.TLS, 1, [])


async def test_attempts_limit_the_number_of_replicas_tried(tmp_path: Path) -> None:
    async with site(refusing, tmp_path, retry={"attempts": 1}) as there:
        status, attempts = await by_route(there.client)
        assert (status, len(attempts), there.requests) == (Kind.CONNECT, 1, [])


async def dying_mid_request(stack: AsyncExitStack) -> str:
    """The replica reads the request and closes the connection."""

    async def handler(peer: Peer) -> None:
        await peer.read_request()

    return f"127.0.0.1:{int(await stack.enter_async_context(raw_server(handler)))}"


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ({}, Kind.RESET),
        ({"method": "PATCH"}, Kind.RESET),
        ({"headers": {"Idempotency-Key": "k"}}, 200),
        ({"method": "PUT"}, 200),
        ({"method": "GET", "json": None}, 200),
    ],
    ids=["post", "patch", "post with a key", "put", "get"],
)
async def test_a_sent_request_is_retried_only_if_that_is_safe(
    call: dict[str, Any], status: Kind | int, tmp_path: Path
) -> None:
    call = {name: value for name, value in {"json": "`1`", **call}.items() if value is not None}
    async with site(dying_mid_request, tmp_path) as there:
        made = configured({"urls": ["http://a"]}, {"a": {"method": "POST", **call}})
        result = await run(compile_route(made, 0), Inputs(), facts(2.0), {"u": there.client}, Records())
        failure = result.outcomes[0].failure
        assert (failure.kind if failure else 200) == status
        assert len(there.requests) == (status == 200)


async def pieces() -> AsyncIterator[bytes]:
    """A request body that can be sent only once."""
    yield b"a"
    yield b"b"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("body", ["bytes", "a stream"])
async def test_an_httpx_transport_retries_an_unsent_post_on_another_replica(
    body: str, streamed: bool, tmp_path: Path
) -> None:
    async with site(refusing, tmp_path) as there, AsyncExitStack() as stack:
        urls = [f"http://{await refusing(stack)}", f"http://127.0.0.1:{int(there.live)}"]
        retry = Retry(attempts=3, backoff=0.001)
        async with Transport(urls, balance="round_robin", retry=retry) as transport:
            client = httpx.AsyncClient(transport=transport, base_url="http://any")
            extensions = {"stream": True} if streamed else {}
            content = b"ab" if body == "bytes" else pieces()
            reply = await client.post("/", content=content, extensions=extensions)
            assert (reply.status_code, reply.json()) == (200, {"one": 1})
            assert len(there.requests) == 1
