from __future__ import annotations

import httpx
import pytest

from umbel.upstream.balance import Balance
from umbel.upstream.errors import BadRequest
from umbel.upstream.origin import REPLICA, Origin, Replica, origin_of


class Bottom(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200)


async def test_replicas_take_turns_and_each_gives_url_host_and_base() -> None:
    bottom = Bottom()
    balance = Balance(bottom, ["http://a:81/base", "https://[::1]", "unix:/run/x.sock"], policy="round_robin")
    asked = httpx.Request(
        "GET", "http://upstream", headers={"host": "evil", "x-a": "1"}, extensions={"target": b"/t?q"}
    )
    for _ in range(4):
        await balance.handle_async_request(asked)
    seen = [
        (str(each.url), each.headers.get_list("host"), each.extensions["target"], each.extensions[REPLICA].origin)
        for each in bottom.requests
    ]
    assert seen == [
        ("http://a:81/", ["a:81"], b"/base/t?q", Origin("http", "a", 81)),
        ("https://[::1]/", ["[::1]"], b"/t?q", Origin("https", "::1", 443)),
        ("http://localhost", ["localhost"], b"/t?q", Origin("http", "localhost", 80, "/run/x.sock")),
        ("http://a:81/", ["a:81"], b"/base/t?q", Origin("http", "a", 81)),
    ]
    assert [each.taken for each in balance.statistics().replicas] == [2, 1, 1]
    assert all(each.headers["x-a"] == "1" for each in bottom.requests)


async def test_the_request_that_it_was_given_stays_as_it_was() -> None:
    asked = httpx.Request("POST", "http://upstream/p?q=1", content=b"body")
    bottom = Bottom()
    await Balance(bottom, ["http://a"]).handle_async_request(asked)
    assert (str(asked.url), asked.headers["host"], asked.extensions) == ("http://upstream/p?q=1", "upstream", {})
    assert bottom.requests[0].extensions["target"] == b"/p?q=1"
    assert bottom.requests[0].read() == b"body"


def test_the_servers_name_is_for_https_alone() -> None:
    assert Replica.parse("https://a", server_name="b").origin.sni == "b"
    assert Replica.parse("http://a", server_name="b").origin.sni is None


def test_names_are_idna_and_schemes_are_two() -> None:
    assert origin_of(httpx.URL("http://bücher.example")) == Origin("http", "xn--bcher-kva.example", 80)
    assert origin_of(httpx.URL("https://a")).where == "a:443"
    for url in ("ftp://a", "/a", "http://", "ws://a"):
        with pytest.raises(BadRequest):
            origin_of(httpx.URL(url))
