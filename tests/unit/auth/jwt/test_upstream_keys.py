"""``auth/jwt/upstream_keys.py``: fetches through an upstream, with a scripted one."""

from __future__ import annotations

import httpx
import pytest
import trio

from tests.support.auth.providers import FIRST
from tests.support.composition.composing import Scripted
from umbel.auth.jwt.key_source import FetchError
from umbel.auth.jwt.upstream_keys import UpstreamKeys
from umbel.config.schema.sections import Upstream
from umbel.core.httpx_calls.transport_caller import TransportCaller


def upstream(scripted: Scripted, **keys: object) -> UpstreamKeys:
    config = Upstream.model_validate({"urls": ["https://ID.example/base", "dns+http://b.example:8080"], **keys})
    return UpstreamKeys("id", config, TransportCaller(scripted))


def answering(response: httpx.Response) -> Scripted:
    async def handler(request: httpx.Request) -> httpx.Response:
        return response

    return Scripted(handler)


async def test_a_fetch_is_a_get_without_anything_of_a_client() -> None:
    scripted = answering(httpx.Response(200, content=FIRST))

    assert await upstream(scripted).fetch("/jwks.json?a=1") == FIRST
    (request,) = scripted.requests
    assert (request.method, scripted.targets) == ("GET", ["/jwks.json?a=1"])
    assert {"authorization", "cookie"}.isdisjoint(request.headers)
    assert "json" in request.headers["accept"]


def test_the_origins_are_those_of_all_urls() -> None:
    found = upstream(answering(httpx.Response(200)))

    assert found.origins == {"https://id.example:443", "http://b.example:8080"}


@pytest.mark.parametrize("status", [201, 204, 206, 301, 302, 304, 401, 404, 500, 503])
async def test_another_status_than_200_is_a_failure(status: int) -> None:
    scripted = answering(httpx.Response(status, headers={"location": "https://evil.example/"}, content=b""))

    with pytest.raises(FetchError, match=f"the upstream id answered {status}"):
        await upstream(scripted).fetch("/jwks.json")
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(("timeout", "seconds"), [(None, 5.0), ("2s", 2.0), ("20s", 5.0)])
async def test_an_upstream_that_hangs_is_a_failure_at_its_limit(
    timeout: str | None, seconds: float, autojump_clock: trio.abc.Clock
) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    scripted, began = Scripted(handler), trio.current_time()

    with pytest.raises(FetchError, match="failed"):
        await upstream(scripted, **({} if timeout is None else {"timeout": timeout})).fetch("/jwks.json")

    assert trio.current_time() - began == pytest.approx(seconds)
    assert scripted.in_flight == 0


async def test_an_exception_of_a_foreign_transport_is_a_failure_without_its_text() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("with a secret")

    with pytest.raises(FetchError) as raised:
        await upstream(Scripted(handler)).fetch("/jwks.json")
    assert str(raised.value) == "the call to upstream id failed: ConnectError"
