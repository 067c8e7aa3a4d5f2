"""A peer that closes at every byte of a response: the result of the call, and whether it is retried."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.support.composition.over_sockets import assert_nothing_left
from tests.support.upstream.calls import calling, url
from tests.support.upstream.raw_server import Peer, open_sockets, raw_server, response
from umbel.core.errors import UpstreamError
from umbel.core.events import AttemptEnded
from umbel.core.failure_kinds import Kind

BODY = b'{"n":1234}'
HEAD = b"HTTP/1.1 200 OK\r\n"
RESPONSES: dict[str, bytes] = {
    "plain": response(BODY),
    "chunked": HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n4\r\n"
    + BODY[:4]
    + b"\r\n6\r\n"
    + BODY[4:]
    + b"\r\n0\r\n\r\n",
    "gzip": response(gzip.compress(BODY, mtime=0), b"Content-Encoding: gzip"),
    "until the end": HEAD + b"\r\n" + BODY,
}
AGAIN = response(b"again")
RETRY = {"retry": {"attempts": 2, "backoff": "1ms"}, "retry_budget": "100%", "ejection": False}


class Closing:
    """Answers ``/<n>`` with the first n bytes and an end, once for each method and n; everything else whole."""

    def __init__(self, whole: bytes, *, resets: bool) -> None:
        self._whole = whole
        self._resets = resets
        self._seen: set[bytes] = set()

    async def handler(self, peer: Peer) -> None:
        while (request := await peer.read_request())[0]:
            target = request[0].split(b" ")[1]
            if target == b"/warm" or target in self._seen:
                await peer.send(AGAIN)
                continue
            self._seen.add(target)
            if count := int(target[1:]):
                await peer.send(self._whole[:count])
            if self._resets:
                if count:
                    await wait_all_tasks_blocked()  # The client reads it: a reset may overtake what it has not read.
                peer.reset()
            return


def expected(name: str, count: int, *, resets: bool, kept: bool, repeats: bool) -> list[Any]:
    """The ends of the attempts: the body, or the kind of the failure."""
    whole = RESPONSES[name]
    if not count:
        if not repeats:
            return [Kind.RESET]
        # A kept connection may have ended before; that is no failure of the replica.
        return [b"again"] if kept else [Kind.RESET, b"again"]
    if count == len(whole) and not (resets and name == "until the end"):
        return [BODY]
    if resets:
        return [Kind.RESET]
    head = whole.index(b"\r\n\r\n") + 4
    if name == "until the end" and count >= head:
        return [whole[head:count]]
    return [Kind.MALFORMED]


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("resets", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize(
    ("method", "kept"), [("GET", False), ("GET", True), ("POST", False)], ids=["fresh", "kept", "POST"]
)
async def test_a_peer_that_closes_at_any_byte_has_a_defined_result(
    name: str, resets: bool, method: str, kept: bool
) -> None:
    whole, sockets = RESPONSES[name], open_sockets()
    async with (
        raw_server(Closing(whole, resets=resets).handler) as server,
        calling(url(server), **RETRY) as caller,
    ):
        pool = caller.client.pool
        for count in range(len(whole) + 1):
            await pool.aclose()
            if kept:
                await caller.call(b"/warm")
            before = len(caller.records.events)
            end: Any
            try:
                end = (await caller.call(b"/%d" % count, method=method)).content
            except UpstreamError as error:
                end = error.kind
            wanted = expected(name, count, resets=resets, kept=kept, repeats=method == "GET")
            assert end == wanted[-1], count
            attempts = [event.attempt for event in caller.records.events[before:] if isinstance(event, AttemptEnded)]
            assert attempts == caller.attempts
            assert [attempt.kind for attempt in attempts] == [
                each if isinstance(each, Kind) else None for each in wanted
            ]
            assert attempts[0].reused == (kept and count > 0)
        said = caller.client.statistics()
        assert said.pool.replaced == kept
        assert said.retry.retries == (method == "GET" and not kept)
        assert_nothing_left(caller.client)
    assert open_sockets() == sockets
