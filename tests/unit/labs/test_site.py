"""The site of ``umbel lab --serve``: its pages, whose requests it answers, and how many runs it makes."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.unit.labs.runs import runs
from umbel.admin.connections import serve_connections
from umbel.admin.listeners import tcp_listener
from umbel.labs.model import PACKAGES, Lab, Run
from umbel.labs.run import LabError
from umbel.labs.site import WAITING_MAX, LabSite, serve_labs


async def recorded(lab: Lab) -> Mapping[str, Run]:
    return runs()


def unexpected(event: str, sentence: str) -> None:
    raise AssertionError(f"{event}: {sentence}")


@asynccontextmanager
async def site(run: Callable[[Lab], Awaitable[Mapping[str, Run]]] = recorded) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the site, which is served until the block ends."""
    listener = tcp_listener("127.0.0.1:0")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connections, LabSite(listener.address, run), listener.socket, unexpected)
            async with httpx.AsyncClient(base_url=f"http://{listener.address}", trust_env=False) as client:
                yield client
            nursery.cancel_scope.cancel(reason="the test is over")
    finally:
        listener.close()


async def test_the_pages_have_links_to_each_other_and_no_runs() -> None:
    async with site() as client:
        index = (await client.get("/")).text
        first, second = list(PACKAGES)[:2]
        page = await client.get(f"/{first}")
    assert all(f'<a href="/{number}">' in index for number in PACKAGES)
    assert '<a href="/">All labs</a>' in page.text
    assert f'<a href="/{second}">' in page.text
    assert "; connect-src 'self'" in page.text
    assert '"columns"' not in page.text
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert page.headers["cache-control"] == "no-store"


async def test_a_run_gives_what_the_programs_did() -> None:
    async with site() as client:
        answer = await client.post("/1/run")
    assert answer.status_code == 200
    assert [column["key"] for column in answer.json()] == ["gather", "taskgroup", "trio"]


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "/1/run", {}, 405),
        ("POST", "/1", {}, 405),
        ("GET", "/0", {}, 404),
        ("POST", f"/{max(PACKAGES) + 1}/run", {}, 404),
        ("GET", "/1/", {}, 404),
        ("GET", "/%31", {}, 404),
        ("POST", "/1/run", {"host": "evil.example"}, 421),
        ("POST", "/1/run", {"origin": "http://evil.example"}, 403),
        ("POST", "/1/run", {"sec-fetch-site": "cross-site"}, 403),
        ("GET", "/1", {"sec-fetch-site": "none"}, 200),
    ],
)
async def test_other_paths_methods_and_origins_start_no_run(
    method: str, path: str, fields: dict[str, str], status: int
) -> None:
    async def never(lab: Lab) -> Mapping[str, Run]:
        raise AssertionError(lab)

    async with site(never) as client:
        answer = await client.request(method, path, headers=fields)
    assert answer.status_code == status
    assert status == 200 or json.loads(answer.text)["detail"]


async def test_its_own_page_may_ask_for_a_run() -> None:
    async with site() as client:
        own = str(client.base_url).rstrip("/")
        answer = await client.post("/1/run", headers={"origin": own, "sec-fetch-site": "same-origin"})
    assert answer.status_code == 200


async def test_a_program_that_crashes_is_told_to_the_page() -> None:
    async def crashes(lab: Lab) -> Mapping[str, Run]:
        raise LabError("Lab 1, trio nursery: the program has crashed")

    async with site(crashes) as client:
        answer = await client.post("/1/run")
    assert answer.status_code == 500
    assert answer.json()["detail"] == "Lab 1, trio nursery: the program has crashed"


async def test_one_lab_runs_at_a_time_and_few_wait() -> None:
    running, most, go, statuses = 0, 0, trio.Event(), []

    async def run(lab: Lab) -> Mapping[str, Run]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        return runs()

    async def ask(client: httpx.AsyncClient) -> None:
        statuses.append((await client.post("/1/run", timeout=20)).status_code)

    async with site(run) as client, trio.open_nursery() as nursery:
        for _ in range(1 + WAITING_MAX + 2):
            nursery.start_soon(ask, client)
        with trio.fail_after(20):
            while len(statuses) < 2:
                await wait_all_tasks_blocked(0.01)
        assert statuses == [503, 503]
        go.set()
    assert sorted(statuses) == [200] * (1 + WAITING_MAX) + [503, 503]
    assert most == 1


async def test_a_client_that_leaves_ends_its_run() -> None:
    began, ended = trio.Event(), trio.Event()

    async def run(lab: Lab) -> Mapping[str, Run]:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    async with site(run) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.post, "/1/run")
            with trio.fail_after(20):
                await began.wait()
            nursery.cancel_scope.cancel(reason="the client leaves")
        with trio.fail_after(20):
            await ended.wait()


async def test_a_signal_ends_the_site() -> None:
    listener = tcp_listener("127.0.0.1:0")
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_labs, listener, unexpected)
                async with httpx.AsyncClient(trust_env=False) as client:
                    assert (await client.get(f"http://{listener.address}/")).status_code == 200
                signal.raise_signal(signal.SIGTERM)
    finally:
        listener.close()
