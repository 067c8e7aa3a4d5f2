"""Keys of tokens and real workers: a start without keys, and replacements of workers with and without a provider."""

from __future__ import annotations

import hashlib
import os
import signal
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


async def ask(port: int, token: list[tuple[str, str]], statuses: list[int]) -> None:
    """Make requests one after the other until cancelled."""
    while True:
        statuses.append((await fetch(port, "GET", "/r", token)).status)


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
                nursery.start_soon(ask, master.port, token, statuses)
                assert (await master.ask(command="reload"))["ok"]
                nursery.cancel_scope.cancel(reason="the reload is over")
            assert await master.pids() != before
    assert len(statuses) > 10
    assert set(statuses) == {200}


async def test_a_reload_and_a_recycle_without_the_provider_keep_the_worker_that_has_keys(tmp_path: Path) -> None:
    async with provided(Provider(users={"ada": {}})) as provider:
        write(tmp_path, CONFIG.format(port=provider.port, start_timeout="8s"))
        token = [("authorization", f"Bearer {provider.token('ada')}")]
        missing = f"the keys of {provider.issuer} for [auth.users] have not come yet: the upstream id answered 500"
        statuses: list[int] = []
        async with supervised(tmp_path, "--restart-max-delay", "0.1s", workers=1, app=None) as master:
            before = await master.pids()
            provider.trouble = "500"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, master.port, token, statuses)
                answer = await master.ask(command="reload")
                assert answer == {"ok": False, "error": f"the new worker 1 did not get ready, because {missing}"}
                assert "1 old workers serve on, 0 were replaced" in await master.line("reload.aborted")
                await master.ask(command="drain", slot=1)
                assert missing in await master.line("worker.recycle_put_off")
                assert (await fetch(master.port, "GET", "/readyz")).status == 200
                provider.trouble = ""
                line = await master.line("ended: recycle")
                assert f"worker 1 ({before[1]})" in line
                nursery.cancel_scope.cancel(reason="the worker is replaced")
            assert await master.pids() != before
    assert len(statuses) > 10
    assert set(statuses) == {200}


async def test_a_worker_that_replaces_a_dead_one_serves_without_keys(tmp_path: Path) -> None:
    async with provided(Provider(users={"ada": {}})) as provider:
        write(tmp_path, CONFIG.format(port=provider.port, start_timeout="8s"))
        async with supervised(tmp_path, workers=1, app=None) as master:
            provider.trouble = "500"
            await master.ask(command="kill", slot=1)
            await master.line("worker.ready")
            await is_ready(master, 503, 503, 1)
            # Nothing is lost by the replacement of a worker that has no keys.
            assert (await master.ask(command="reload"))["ok"]
            await is_ready(master, 503, 503, 1)


async def test_a_successor_whose_worker_dies_serves_without_keys(tmp_path: Path) -> None:
    async with provided(Provider(users={"ada": {}})) as provider:
        write(tmp_path, CONFIG.format(port=provider.port, start_timeout="8s"))
        async with supervised(tmp_path, workers=1, app=None) as master:
            old = (await master.pids())[1]
            provider.trouble = "500"
            provider.failed = trio.Event()
            master.signal(signal.SIGHUP)
            await provider.failed.wait()  # The successor has been refused its keys, and waits for the next try.
            successor = (await master.pids())[1]
            assert successor != old
            os.kill(old, signal.SIGKILL)
            assert f"worker 1 ({successor}) is ready" in await master.line("worker.ready")
            await is_ready(master, 503, 503, 1)


KEY = "uk_of_a_partner"
KEYS = f'[[keys]]\nid = "acme"\nsha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"\n'
PARTNERS = """
[auth.partners]
kind = "api-key"
file = "keys.toml"
[[routes]]
path = "/r"
auth = "partners"
respond = { text = "hello" }
[[routes]]
path = "/open"
auth = "none"
respond = { text = "open" }
"""


async def test_a_broken_key_file_and_a_crash_stop_only_the_routes_of_these_keys(tmp_path: Path) -> None:
    write(tmp_path, PARTNERS, {"keys.toml": KEYS})
    key = [("x-api-key", KEY)]
    async with supervised(tmp_path, workers=1, app=None) as master:
        assert (await fetch(master.port, "GET", "/r", key)).status == 200
        (tmp_path / "keys.toml").write_text("[[keys]\n")
        (pid,) = (await master.pids()).values()
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(TEST_TIMEOUT_S):
            assert "cannot be used; its keys get 503 until it can" in await master.line("keys.toml of [auth.partners]")
            await master.line("worker.ready")
        assert (await fetch(master.port, "GET", "/r", key)).status == 503
        assert (await fetch(master.port, "GET", "/r")).status == 401
        assert (await fetch(master.port, "GET", "/open")).status == 200
        assert (await fetch(master.port, "GET", "/readyz")).status == 200
        reloaded = await master.ask(command="reload")
        assert not reloaded["ok"]
        assert (await fetch(master.port, "GET", "/open")).status == 200
        (tmp_path / "keys.toml").write_text(KEYS)
        with trio.fail_after(TEST_TIMEOUT_S):
            while (await fetch(master.port, "GET", "/r", key)).status != 200:
                await wait_all_tasks_blocked(0.05)


async def test_a_broken_key_file_at_the_first_start_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    program = 'from umbel import Umbel\napp = Umbel.from_file("umbel.toml")\n'
    write(tmp_path, PARTNERS, {"keys.toml": "[[keys]\n", "served.py": program})
    for app in (None, "served:app"):
        async with supervised(tmp_path, workers=1, app=app, ready=False) as master:
            assert await master.child.end() == 78
            assert "keys.toml:1: is not TOML" in master.child.output
