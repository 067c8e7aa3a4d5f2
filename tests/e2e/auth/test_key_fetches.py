"""Key sets that are fetched through an upstream's client, over sockets and in virtual time."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import repeat

import pytest
import trio

from tests.support.auth.providers import FIRST
from tests.support.upstream.calls import url
from tests.support.upstream.raw_server import Handler, Peer, answering, raw_server, response, silent
from umbel.auth.jwt.key_set import SIZE_MAX
from umbel.auth.jwt.key_source import FETCH_SECONDS, FetchError
from umbel.auth.jwt.upstream_keys import UpstreamKeys
from umbel.config.schema.sections import Upstream
from umbel.upstream import Client, build

MockClock = trio.testing.MockClock


@pytest.fixture
def jumping(mock_clock: MockClock) -> MockClock:
    """A clock that jumps once nothing has happened for a while: all ends of the sockets are in this very loop."""
    mock_clock.autojump_threshold = 0.005
    return mock_clock


@asynccontextmanager
async def fetching(handler: Handler, **keys: object) -> AsyncIterator[tuple[UpstreamKeys, Client]]:
    """An upstream with one replica, which answers as the handler does."""
    async with raw_server(handler) as server:
        config = Upstream.model_validate({"urls": [url(server)], **keys})
        async with build("id", config) as client:
            yield UpstreamKeys("id", config, client), client


@pytest.mark.parametrize("policies", [{}, {"coalesce": True, "retry": {}}], ids=["plain", "policies"])
async def test_a_key_set_is_fetched_and_its_connection_kept(policies: dict[str, object]) -> None:
    async with fetching(answering(response(FIRST), response(FIRST)), **policies) as (keys, client):
        assert await keys.fetch("/jwks.json?v=1") == FIRST
        assert await keys.fetch("/jwks.json") == FIRST
        assert client.statistics().pool.opened == 1


async def test_the_retry_policy_of_the_upstream_holds_for_a_fetch() -> None:
    answers = answering(response(b"", status=b"503 Unavailable"), response(FIRST))

    async with fetching(answers, retry={"on": [503], "backoff": "1ms"}) as (keys, _):
        assert await keys.fetch("/jwks.json") == FIRST


async def test_a_request_for_keys_has_nothing_of_any_client() -> None:
    heads: list[bytes] = []

    async def handler(peer: Peer) -> None:
        heads.append(await peer.read_head())
        await peer.send(response(FIRST))

    async with fetching(handler) as (keys, _):
        await keys.fetch("/a%20b?c=%2F")

    assert heads[0].startswith(b"GET /a%20b?c=%2F HTTP/1.1\r\n")
    for name in (b"authorization", b"cookie", b"x-forwarded-for", b"traceparent"):
        assert name not in heads[0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        response(b"x" * (SIZE_MAX + 1)),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50000\r\n" + b"x" * 0x50000 + b"\r\n0\r\n\r\n",
        response(gzip.compress(b"x" * (SIZE_MAX + 1)), b"Content-Encoding: gzip"),
    ],
    ids=["length", "chunked", "gzip"],
)
async def test_a_body_beyond_the_bound_fails_the_fetch(answer: bytes) -> None:
    async with fetching(answering(answer)) as (keys, client):
        with pytest.raises(FetchError, match="the call to upstream id failed"):
            await keys.fetch("/jwks.json")
        assert client.statistics().pool.active == 0


@pytest.mark.parametrize("drips", [False, True], ids=["silence", "drip"])
async def test_a_fetch_ends_at_its_limit_however_its_provider_drips(drips: bool, jumping: MockClock) -> None:
    async def dripping(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for piece in repeat(b" "):
            await trio.sleep(0.9)
            await peer.send(piece)

    async with fetching(dripping if drips else silent) as (keys, _):
        began = trio.current_time()
        with pytest.raises(FetchError, match="failed"):
            await keys.fetch("/jwks.json")
        assert trio.current_time() - began == pytest.approx(FETCH_SECONDS, abs=0.1)
