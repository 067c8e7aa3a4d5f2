"""The admin side of real processes: two instances, blocked event loops, floods, terminals and taken addresses."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.gateway.configs import GOOD, write
from tests.support.process.admin import ask_admin, ask_admin_bytes
from tests.support.process.processes import PYTHON, Child, ended, started
from tests.support.process.supervised import Supervised, supervised, write_app
from tests.support.process.terminal import on_terminal

TEST_TIMEOUT_S = 30.0
UMBEL = (PYTHON, "-m", "umbel")
SERVE = (*UMBEL, "serve", "--bind", "127.0.0.1:0")
CTL = (*UMBEL, "ctl")
MODES = pytest.mark.parametrize("more", [(), ("-w", "1")], ids=["alone", "supervised"])
TOKEN = "0123456789abcdef"


async def appeared(path: Path) -> None:
    """Wait until a path exists."""
    with trio.fail_after(TEST_TIMEOUT_S):
        while not await trio.Path(path).exists():
            await wait_all_tasks_blocked(0.02)


@contextmanager
def taken() -> Iterator[str]:
    """An address on loopback that another process has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def blocked(master: Supervised) -> AsyncIterator[None]:
    """Run the block while a worker's event loop is blocked."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(master.get, "/block")
        await master.appeared("blocked")
        yield
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_master_answers_while_the_event_loop_of_a_worker_is_blocked(tmp_path: Path) -> None:
    async with supervised(tmp_path, workers=2) as master, blocked(master):
        with trio.fail_after(10):
            _, status = await ask_admin(master.socket, "GET", "/status")
            _, trees = await ask_admin(master.socket, "GET", "/tree")
            _, metrics = await ask_admin_bytes(master.socket, "GET", "/metrics")
            code, readiness = await ask_admin(master.socket, "GET", "/readyz")
    assert ["stats" in slot["workers"][0] for slot in status["slots"]].count(True) == 1
    silent = [tree for tree in trees["trees"] if tree.get("note", "").startswith("no answer within 2 s")]
    assert len(silent) == 1
    stale = [line for line in metrics.decode().splitlines() if line.startswith("umbel_worker_stale{")]
    assert sorted(line.rpartition(" ")[2] for line in stale) == ["0.0", "1.0"]
    assert (code, readiness["failing_logs"]) == (200, [])
    assert readiness["workers"] == {"ready": 2, "silent": 1, "without_keys": 0, "size": 2}


async def test_ctl_answers_while_the_event_loop_of_a_single_process_is_blocked(tmp_path: Path) -> None:
    write_app(tmp_path)
    async with started(*SERVE, "served:app", cwd=tmp_path) as server, trio.open_nursery() as nursery:
        single = Supervised(server, tmp_path)
        single.port = int((await server.address("Umbel runs on")).rpartition(":")[2])
        nursery.start_soon(single.get, "/block")
        await single.appeared("blocked")
        status, shown = await ended(*CTL, "status", cwd=tmp_path)
        assert (status, shown.splitlines()[0].split(" for ")[0]) == (0, "blocked: the event loop has been blocked")
        assert "served.py:" in shown
        _, metrics = await ask_admin_bytes(single.socket, "GET", "/metrics")
        assert b'umbel_worker_stale{worker="main"} 1.0' in metrics
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_master_outlives_whatever_happens_to_its_admin_side(tmp_path: Path) -> None:
    async with supervised(tmp_path, workers=1) as master:
        before = await master.pids()
        async with AsyncExitStack() as stack:
            for _ in range(1000):  # Idle connections; the server closes those beyond its bound.
                stack.push_async_callback((await trio.open_unix_socket(master.socket)).aclose)
            assert (await ask_admin(master.socket, "GET", "/livez"))[0] == 200
        for target, body, expected in (("/ctl/scale", b" " * 5000, 413), (f"/{'x' * 3000}", b"", 414)):
            assert (await ask_admin_bytes(master.socket, "POST", target, body))[0] == expected
        shutil.rmtree(tmp_path / "logs")
        await master.line("admin.removed: ")
        await appeared(master.socket)
        assert await master.pids() == before
        assert (await master.get()).startswith(b"HTTP/1.1 200")
        assert (await master.ask(command="stop"))["ok"]
        assert await master.child.end() == 0


async def test_two_instances_in_one_directory_have_a_socket_each(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    logs, supervised_too = tmp_path / "logs", (*SERVE, "-w", "1")
    async with started(*supervised_too, cwd=tmp_path) as first:
        await first.line("Umbel runs on")
        async with started(*SERVE, cwd=tmp_path) as second:
            await second.line("Umbel runs on")
            assert sorted(path.name for path in logs.glob("*.sock")) == [f"admin-{second.pid}.sock", "admin.sock"]
            status, shown = await ended(*CTL, "stop", cwd=tmp_path)
            assert (status, shown.startswith("Error: several instances run; name one with --socket: ")) == (1, True)
            assert (await ask_admin(logs / f"admin-{second.pid}.sock", "POST", "/ctl/stop"))[0] == 200
            assert await second.end() == 0
        first.send(signal.SIGKILL)
    async with started(*SERVE, cwd=tmp_path) as third:
        await third.line("Umbel runs on")
        assert [path.name for path in logs.glob("*.sock")] == ["admin.sock"]
        assert (await ask_admin(logs / "admin.sock", "POST", "/ctl/reopen"))[0] == 200
        assert await ended(*CTL, "stop", "--quick", cwd=tmp_path) == (0, "stopping\n")
        assert await third.end() == 0


@MODES
@pytest.mark.parametrize("key", ["bind", "metrics"])
async def test_a_configured_address_that_is_taken_ends_the_start_with_78(
    key: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    with taken() as address:
        token = f'token = "{TOKEN}"\n' if key == "bind" else ""
        write(tmp_path, f'{GOOD}[admin]\n{key} = "{address}"\n{token}')
        status, output = await ended(*SERVE, *more, cwd=tmp_path)
    assert (status, output.count("\n")) == (78, 1)
    assert output.startswith(
        f"admin.{key}: cannot listen on {address}: Address already in use; another process, or another"
    )
    assert TOKEN not in output


async def test_each_process_of_hypercorn_has_a_socket_and_the_first_one_the_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    write(tmp_path, f'{GOOD}[admin]\nmetrics = "{address}"\n')
    command = (PYTHON, "-m", "hypercorn", "-k", "trio", "-w", "2", "--bind", "127.0.0.1:0", "umbel.asgi:app")
    logs = tmp_path / "logs"
    async with started(*command, cwd=tmp_path) as server:
        with trio.fail_after(TEST_TIMEOUT_S):
            while len(sockets := sorted(logs.glob("*.sock"))) < 2:
                await wait_all_tasks_blocked(0.02)
        answers = [await ask_admin(path, "GET", "/status") for path in sockets]
        pids = {answer["process"]["pid"] for status, answer in answers if status == 200}
        assert len(pids) == 2
        assert sorted(path.name for path in sockets)[1] == "admin.sock"
        status, answer = await ask_admin(sockets[0], "POST", "/ctl/scale", {"count": 3})
        assert (status, answer["detail"]) == (409, "scale needs a master: umbel serve -w N")
        with trio.fail_after(TEST_TIMEOUT_S):
            while '"event":"admin.closed"' not in (records := (logs / "app.jsonl").read_text()):
                await wait_all_tasks_blocked(0.02)
        assert f"admin.metrics: cannot listen on {address}" in records
        await server.stop(signal.SIGTERM)
    assert list(logs.glob("*.sock")) == []


async def ask_tcp(address: str, target: str, **fields: str) -> tuple[int, str]:
    """Send one request over TCP; return the status and the whole response."""
    host, _, port = address.rpartition(":")
    lines = "".join(f"{name}: {value}\r\n" for name, value in ({"host": address} | fields).items())
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode())
        received = b"".join([piece async for piece in stream]).decode()
    return int(received.split()[1]), received


@pytest.mark.parametrize(
    "arguments", [("serve", "-b", "127.0.0.1:0"), ("serve", "-b", "127.0.0.1:0", "-w", "1"), ("demo", "--port", "0")]
)
async def test_the_url_on_a_terminal_opens_the_page_once(arguments: tuple[str, ...], tmp_path: Path) -> None:
    if arguments[0] == "serve":
        write(tmp_path, GOOD)
    async with on_terminal(tmp_path, *arguments) as program:
        found = await program.until(r"http://(127\.0\.0\.1:96\d\d)(/\?token=([\w-]+))")
        address, target, token = found.groups()
        status, response = await ask_tcp(address, target)
        assert (status, "\r\nlocation: /\r\n" in response) == (303, True)
        cookie = response.partition("set-cookie: ")[2].partition(";")[0]
        assert (await ask_tcp(address, "/", cookie=cookie))[0] == 200
        assert (await ask_tcp(address, target))[0] == 401
        assert (await ask_tcp(address, "/"))[0] == 401
        assert (await ask_tcp(address, "/", cookie=cookie, host="evil.example"))[0] == 421
        assert (await ask_tcp(address, "/", cookie=cookie, origin="http://evil.example"))[0] == 403
        shown = json.loads((await ask_tcp(address, "/status", cookie=cookie))[1].partition("\r\n\r\n")[2])
        assert ("master" in shown) == ("-w" in arguments)
    for path in (tmp_path / "logs").iterdir():
        assert token not in path.read_text()


ON_STDOUT = '[logs]\naccess = { file = "-" }\ncalls = { file = "-" }\napp = { file = "-" }\n'


async def test_logs_on_stdout_alone_leave_no_directory_and_no_socket(tmp_path: Path) -> None:
    write(tmp_path, GOOD + ON_STDOUT)
    async with started(*SERVE, "-w", "1", cwd=tmp_path) as server:
        assert "there is no directory" in await server.line("admin.closed")
        await server.line("Umbel runs on")
        assert await server.stop(signal.SIGTERM) == 0
    assert not (tmp_path / "logs").exists()


async def test_the_socket_is_in_the_runtime_directory_if_there_is_one(tmp_path: Path) -> None:
    write(tmp_path, GOOD + ON_STDOUT)
    (tmp_path / "run").mkdir()
    env = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
    async with started(*SERVE, cwd=tmp_path, env=env) as server:
        await appeared(tmp_path / "run" / "umbel-admin.sock")
        assert (await ended(*CTL, "status", cwd=tmp_path, env=env))[0] == 0
        assert await server.stop(signal.SIGTERM) == 0
    assert not (tmp_path / "logs").exists()


async def test_the_token_is_shown_nowhere(tmp_path: Path) -> None:
    write(tmp_path, f'{GOOD}[admin]\nbind = "127.0.0.1:0"\ntoken = "${{ADMIN_TOKEN}}"\n')
    env = {"ADMIN_TOKEN": TOKEN}
    said = ""
    for command in (("check", "--json"), ("explain",)):
        said += (await ended(*UMBEL, *command, cwd=tmp_path, env=env))[1]
    async with supervised(tmp_path, app=None, workers=1, env=env) as master:
        status, _ = await ask_admin(master.socket, "GET", "/status")
        assert status == 200
        for target in ("/", "/status", "/tree", "/metrics", "/readyz"):
            said += (await ask_admin_bytes(master.socket, "GET", target))[1].decode()
        child: Child = master.child
        said += "".join(path.read_text() for path in (tmp_path / "logs").glob("*.jsonl")) + child.output
    assert TOKEN not in said
    env = {"ADMIN_TOKEN": "tooshort"}
    status, output = await ended(*SERVE, cwd=tmp_path, env=env)
    assert (status, "admin.token: needs at least 16 characters" in output, "tooshort" in output) == (78, True, False)
