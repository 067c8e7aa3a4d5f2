"""Keys of tokens and readiness of real workers: a start without keys, and a reload that waits for them."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.auth.oidc_provider import Provider, provided
from tests.support.gateway.configs import write
from tests.support.process.admin import ask_admin
from tests.support.process.supervised import Supervised, supervised
from tests.support.server.serving import fetch

TEST_TIMEOUT_S = 30.0
CONFIG = """
[supervisor]
start_timeout = "{start_timeout}"
[upstreams.id]
urls = ["http://127.0.0.1:{port}"]
[auth.users]
kind = "jwt"
algorithms = ["ES256"]
issuers = [{{ iss = "http://127.0.0.1:{port}", jwks = {{ upstream = "id", path = "/jwks.json" }} }}]
[[routes]]
path = "/r"
auth = "users"
respond = {{ text = "hello" }}
"""


async def readiness(master: Supervised) -> tuple[int, int, int]:
    """The statuses of ``/readyz`` of the worker and of the admin side, and the number of workers without keys."""
    status, details = await ask_admin(master.socket, "GET", "/readyz")
    return (await fetch(master.port, "GET", "/readyz")).status, status, details["workers"]["without_keys"]


async def is_ready(master: Supervised, *expected: int) -> None:
    """Wait until the readiness is as expected."""
    with trio.fail_after(TEST_TIMEOUT_S):
        while await readiness(master) != expected:
            await wait_all_tasks_blocked(0.05)


async def test_a_worker_that_gets_no_keys_serves_and_is_not_ready_until_it_has_them(tmp_path: Path) -> None:
    provider = Provider(users={"ada": {}})
    provider.trouble = "500"
    async with provided(provider):
        write(tmp_path, CONFIG.format(port=provider.port, start_timeout="2s"))
        async with supervised(tmp_path, workers=1, app=None) as master:
            await is_ready(master, 503, 503, 1)
            assert "1 of them waiting for keys" in (await master.ask(command="status"))["master"]["summary"]
            token = [("authorization", f"Bearer {provider.token('ada')}")]
            assert (await fetch(master.port, "GET", "/r", token)).status == 503
            assert (await fetch(master.port, "GET", "/livez")).status == 200
            provider.trouble = ""
            await is_ready(master, 200, 200, 0)
            assert (await fetch(master.port, "GET", "/r", token)).status == 200


async def test_no_valid_token_is_refused_while_a_reload_replaces_the_workers(tmp_path: Path) -> None:
    async with provided(Provider(users={"ada": {}})) as provider:
        write(tmp_path, CONFIG.format(port=provider.port, start_timeout="30s"))
        token = [("authorization", f"Bearer {provider.token('ada')}")]
        statuses: list[int] = []
        async with supervised(tmp_path, workers=1, app=None) as master:
            before = await master.pids()
            async with trio.open_nursery() as nursery:

                async def ask() -> None:
                    while True:
                        statuses.append((await fetch(master.port, "GET", "/r", token)).status)

                nursery.start_soon(ask)
                assert (await master.ask(command="reload"))["ok"]
                nursery.cancel_scope.cancel(reason="the reload is over")
            assert await master.pids() != before
    assert len(statuses) > 10
    assert set(statuses) == {200}
