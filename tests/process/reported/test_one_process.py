"""One process without a master: signals, time limits, working directories and sockets."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.gateway.configs import GOOD, write
from tests.support.process.processes import PROJECT, PYTHON, ended, environment, started

APP = """
import trio
from umbel import Umbel

app = Umbel(__name__)
release = {}

@app.get("/wait")
async def wait():
    release["event"] = trio.Event()
    print("a request waits", flush=True)
    await release["event"].wait()
    return "answered"

@app.get("/release")
async def let_go():
    release["event"].set()
    return "released"

if __name__ == "__main__":
    app.run(port=0)
"""
SERVE = (PYTHON, "-m", "umbel", "serve", "--bind", "127.0.0.1:0")
WAYS = pytest.mark.parametrize(
    "command", [(*SERVE, "application:app"), (PYTHON, "application.py")], ids=["umbel serve", "app.run()"]
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "application.py").write_text(APP)
    return tmp_path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@WAYS
async def test_hup_usr1_and_usr2_do_not_affect_a_request_in_flight(command: tuple[str, ...], directory: Path) -> None:
    log = directory / "logs" / "access.jsonl"
    bodies: list[str] = []

    async def ask(client: httpx.AsyncClient, url: str) -> None:
        bodies.append((await client.get(f"{url}/wait")).text)

    async with started(*command, cwd=directory) as server, httpx.AsyncClient() as client:
        url = await server.address("Umbel runs on")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client, url)
            await server.line("a request waits")
            log.rename(log.with_name("renamed"))
            for number in (signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP, signal.SIGUSR2):
                server.send(number)
            lines = [await server.line(f"{name} is ignored: ") for name in ("SIGHUP", "SIGUSR2")]
            await client.get(f"{url}/release")
        assert await server.stop(signal.SIGTERM) == 0
    assert all("restart the process" in line for line in lines)
    assert bodies == ["answered"]
    assert {record["url.path"] for record in read(log)} == {"/wait", "/release"}


@WAYS
async def test_quit_responds_503_to_requests_in_flight_at_once(command: tuple[str, ...], directory: Path) -> None:
    replies: list[httpx.Response] = []

    async def ask(client: httpx.AsyncClient, url: str) -> None:
        replies.append(await client.get(f"{url}/wait"))

    async with started(*command, cwd=directory) as server, httpx.AsyncClient() as client:
        url = await server.address("Umbel runs on")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client, url)
            await server.line("a request waits")
            before = trio.current_time()
            assert await server.stop(signal.SIGQUIT) == 0
            assert trio.current_time() - before < 5
    [record], [reply] = read(directory / "logs" / "access.jsonl"), replies
    assert (record["url.path"], record["http.response.status_code"], reply.status_code) == ("/wait", 503, 503)
    assert record["request_id"] == reply.headers["x-request-id"]
    assert "Traceback" not in server.output


async def test_the_demo_survives_a_hangup(tmp_path: Path) -> None:
    async with started(PYTHON, "-m", "umbel", "demo", "--port", "0", cwd=tmp_path) as demo:
        await demo.line("One line per request")
        demo.send(signal.SIGHUP)
        await demo.line("SIGHUP is ignored: ")
        assert await demo.stop(signal.SIGTERM) == 0


ON_STDOUT = GOOD + '[logs]\naccess = { file = "-" }\ncalls = { file = "-" }\napp = { file = "-" }\n'
MODES = pytest.mark.parametrize("more", [(), ("-w", "1")], ids=["alone", "supervised"])


@contextmanager
def listener() -> Iterator[tuple[socket.socket, tuple[str, ...]]]:
    """A listening socket and the command that serves on it, so that clients can connect at any time."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock, (PYTHON, "-m", "umbel", "serve", "--bind", f"fd://{sock.fileno()}")


async def status_of(sock: socket.socket, path: str) -> int:
    async with httpx.AsyncClient(timeout=30) as client:
        return (await client.get(f"http://127.0.0.1:{sock.getsockname()[1]}{path}")).status_code


@MODES
async def test_logs_on_stdout_are_whole_lines_and_survive_a_reader_that_leaves(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path, ON_STDOUT)
    with listener() as (sock, command):
        run = partial(trio.lowlevel.open_process, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        process = await run([*command, *more], cwd=tmp_path, env=environment(), pass_fds=(sock.fileno(),))
        try:
            assert await status_of(sock, "/nothing") == 404
            assert process.stdout is not None
            received = b""
            with trio.fail_after(30):
                while b'"url.path":"/nothing"' not in received or not received.endswith(b"\n"):
                    received += await process.stdout.receive_some()
            lines = [json.loads(line) for line in received.splitlines()]  # All lines are JSON.
            assert [line["url.path"] for line in lines if line["event"] == "request.end"] == ["/nothing"]
            await process.stdout.aclose()
            process.send_signal(signal.SIGUSR1)
            for number in range(3):
                assert await status_of(sock, f"/nobody-reads/{number}") == 404
            process.terminate()
            with trio.fail_after(30):
                assert await process.wait() == 0
        finally:
            process.kill()
            await process.wait()
    assert not (tmp_path / "logs").exists()
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    ("settings", "option", "told"),
    [
        ("startup_timeout = 0\n", ("-w", "1"), "startup_timeout: must be a number of seconds, more than 0"),
        ("startup_timeout = 0\n", (), "startup_timeout: must be a number of seconds, more than 0"),
        ("backlog = 2147483648\n", (), "backlog: must be at most 2147483647"),
        ("", ("--hang-timeout", "99999999d"), "a duration must be at most 36500d"),
        ("", ("--hang-timeout", "1us"), "must be at least 100ms"),
    ],
)
async def test_a_wrong_number_is_reported_in_one_sentence(
    settings: str, option: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    write(tmp_path, GOOD, {"hypercorn.toml": settings})
    status, output = await ended(*SERVE, *option, cwd=tmp_path)
    assert status == (78 if settings else 2)
    assert told in output.splitlines()[-1]
    assert "Traceback" not in output


@MODES
async def test_an_application_that_starts_too_slowly_is_reported_in_one_sentence(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    slow = "import trio\nasync def app(scope, receive, send):\n    await trio.sleep_forever()\n"
    write(tmp_path, GOOD, {"hypercorn.toml": "startup_timeout = 0.01\n", "slow.py": slow})
    status, output = await ended(*SERVE, *more, "slow:app", cwd=tmp_path)
    assert status == (3 if more else 1)
    assert "the application has not started within startup_timeout, which is 0.01 s" in output
    assert "Traceback" not in output


@MODES
async def test_a_process_without_stdout_serves(more: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, ON_STDOUT)
    with listener() as (sock, command):
        shell = ("/bin/sh", "-c", 'exec "$@" >&- <&-', "sh", *command, *more)
        async with started(*shell, cwd=tmp_path, pass_fds=(sock.fileno(),)) as server:
            for number in range(3):
                assert await status_of(sock, f"/{number}") == 404
            assert await server.stop(signal.SIGTERM) == 0
    assert "Traceback" not in server.output


async def test_hypercorn_without_trio_reports_in_one_line_what_to_write(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    status, output = await ended(PYTHON, "-m", "hypercorn", "-w", "0", "umbel.asgi:app", cwd=tmp_path)
    assert status == 78
    assert output == (
        "Umbel needs trio, and this server runs another event loop; start it with: "
        "hypercorn -k trio -w 0 umbel.asgi:app\n"
    )


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that all users can read, with the configuration at the container's path."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        root.chmod(0o755)
        (root / "etc" / "umbel").mkdir(parents=True)
        write(root / "etc" / "umbel", GOOD)
        yield root


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user")
async def test_the_dockerfile_of_the_docs_lets_its_user_check_and_serve(root: Path) -> None:
    recipe = (PROJECT / "docs" / "deploy.md").read_text().split("```dockerfile\n")[1].split("```")[0]
    steps = [line.partition(" ")[::2] for line in recipe.rpartition("FROM ")[2].splitlines()[1:]]
    words = dict(steps)

    def placed(text: list[str]) -> list[str]:
        return [f"{root}{word}" if word.startswith("/") else word for word in text]

    for name, text in steps:
        if name == "RUN" and not text.startswith("useradd"):
            await trio.run_process(placed(shlex.split(text)))
    _, serve, *arguments = placed(json.loads(words["ENTRYPOINT"]))
    arguments[arguments.index("0.0.0.0:8000")] = "127.0.0.1:0"
    umbel = ("setpriv", f"--reuid={words['USER']}", f"--regid={words['USER']}", "--clear-groups", PYTHON, "-m", "umbel")
    if (await ended(*umbel, "--version", cwd=root))[0] != 0:
        pytest.skip("another user may not run this interpreter")

    assert await ended(*umbel, "check", *arguments[:2], cwd=root) == (
        0,
        f"{root}/etc/umbel/umbel.toml: ok, 1 upstream, 1 route, 1 call\n",
    )
    async with started(*umbel, serve, *arguments, cwd=root) as server:
        await server.line("Umbel runs on")
        assert await server.stop(signal.SIGTERM) == 0
    logs = root / "etc" / "umbel" / "logs"
    assert (logs / "app.jsonl").stat().st_uid == int(words["USER"])

    shutil.rmtree(logs)  # Without this directory the check reports it.
    status, output = await ended(*umbel, "check", *arguments[:2], cwd=root)
    assert status == 0
    assert f"logs.dir: the records could not be written: {root}/etc/umbel is not writable for the user" in output
