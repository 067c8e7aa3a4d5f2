"""The ways to start: each serves the configuration, reports its address, and ends at a signal."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.process.fork_server import BY_EXEC
from tests.support.process.processes import PROJECT, PYTHON, ended, started
from umbel.demo.services import SERVICES
from umbel.demo.session import SAMPLE
from umbel.demo.upstreams import Urls, sample_upstreams
from umbel.server.process.gc_tuning import THRESHOLDS

SERVE = (PYTHON, "-m", "umbel", "serve")


@pytest.fixture
async def upstreams() -> AsyncGenerator[Urls, None]:
    async with sample_upstreams() as urls:
        yield urls


@pytest.fixture
def directory(tmp_path: Path, upstreams: Urls) -> Path:
    """A working directory with the sample umbel.toml with real ports, and the project's hypercorn.toml."""
    text = SAMPLE.read_text()
    for name, service in SERVICES.items():
        for port, url in zip(service.ports, upstreams[name], strict=True):
            text = text.replace(f"http://127.0.0.1:{port}", url)
    (tmp_path / "umbel.toml").write_text(text)
    settings = (PROJECT / "hypercorn.toml").read_text()
    assert '"127.0.0.1:8000"]' in settings
    (tmp_path / "hypercorn.toml").write_text(settings.replace('"127.0.0.1:8000"]', '"127.0.0.1:0"]'))
    return tmp_path


async def page(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"{url}/dashboard/42")


async def test_umbel_serve_reads_both_files_of_the_working_directory(directory: Path) -> None:
    async with started(*SERVE, cwd=directory) as server:
        response = await page(await server.address("Umbel runs on"))
        status = await server.stop(signal.SIGTERM)

    assert response.status_code == 200
    assert response.json()["name"] == "Ada"
    assert "server" not in response.headers
    assert status == 0
    assert "Traceback" not in server.output
    assert (directory / "logs" / "access.jsonl").read_text().count("\n") == 1


async def test_options_and_environment_take_precedence_over_the_files(
    directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "other.toml").write_text('keep_alive_timeout = 1\nbind = "127.0.0.1:1"\n')
    command = (*SERVE, "--hypercorn", "other.toml", "--bind", "127.0.0.1:0", "--bind", f"unix:{elsewhere}/umbel.sock")

    async with started(*command, cwd=elsewhere, env={"UMBEL_CONFIG": str(directory / "umbel.toml")}) as server:
        url = await server.address("Umbel runs on http")
        await server.line("umbel.sock")
        response = await page(url)
        transport = httpx.AsyncHTTPTransport(uds=str(elsewhere / "umbel.sock"))
        async with httpx.AsyncClient(transport=transport) as client:
            by_socket = await client.get("http://umbel/dashboard/42")

    assert response.status_code == by_socket.status_code == 200
    # Paths in a file are relative to that file, whatever the working directory is.
    assert (directory / "logs" / "access.jsonl").exists()
    assert not (elsewhere / "logs").exists()


async def test_stock_hypercorn_serves_the_asgi_module(directory: Path) -> None:
    command = (PYTHON, "-m", "hypercorn", "-c", "hypercorn.toml", "umbel.asgi:app")

    async with started(*command, cwd=directory) as server:
        response = await page(await server.address("Running on"))
        status = await server.stop(signal.SIGTERM)

    assert response.status_code == 200
    assert "server" not in response.headers
    assert status == 0
    assert "Traceback" not in server.output
    assert "log.closed" in (directory / "logs" / "app.jsonl").read_text()


async def test_the_example_starts_itself(upstreams: Urls, tmp_path: Path) -> None:
    urls = {f"{name.upper()}_URL": upstreams[name][0] for name in ("users", "orders", "offers")}
    env = {"PORT": "0", "LOGS_DIR": str(tmp_path / "logs"), **urls}

    async with (
        started(PYTHON, str(PROJECT / "examples" / "app.py"), cwd=tmp_path, env=env) as server,
        httpx.AsyncClient() as client,
    ):
        url = await server.address("Umbel runs on")
        composed = await client.get(f"{url}/report/42")
        configured = await client.get(f"{url}/profile/42")
        plain = await client.get(url)
        status = await server.stop(signal.SIGINT)

    assert composed.status_code == 200
    assert composed.headers["umbel-completed"] == "true"
    assert composed.json()["name"] == "Ada"
    assert composed.json()["offers"]
    assert configured.json()["name"] == "Ada"
    assert plain.text.startswith("A plain Quart route")
    assert (status, "Traceback" in server.output) == (0, False)


async def test_a_configuration_error_is_reported_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text("[upstreams.users]\nurl = []\n")

    status, output = await ended(*SERVE, cwd=tmp_path)

    assert status == 78
    assert "umbel.toml:2: upstreams.users.url: " in output
    assert "Traceback" not in output
    assert not (tmp_path / "logs").exists()


async def test_settings_that_cannot_be_read_are_a_configuration_error(directory: Path) -> None:
    status, output = await ended(*SERVE, "--hypercorn", "nowhere.toml", cwd=directory)

    assert (status, output) == (78, "nowhere.toml: cannot be read: there is no such file\n")


async def test_the_mistakes_of_both_files_are_reported_at_once(directory: Path) -> None:
    (directory / "umbel.toml").write_text("[upstreams.users]\nurl = []\n")
    (directory / "hypercorn.toml").write_text('bind = "127.0.0.1:0"\nworkers = 4\ngraceful_timout = 3\n')

    status, output = await ended(*SERVE, cwd=directory)

    assert status == 78
    assert "umbel.toml:2: upstreams.users.url: " in output
    assert "hypercorn.toml:3: graceful_timout: is not one of Hypercorn's keys; did you mean" in output
    assert output.count("\n") == 2


async def test_workers_in_the_shared_file_are_ignored_with_a_warning(directory: Path) -> None:
    (directory / "hypercorn.toml").write_text('bind = "127.0.0.1:0"\nworkers = 4\n')

    async with started(*SERVE, cwd=directory) as server:
        assert "hypercorn.toml:2: workers: is ignored here" in await server.line("warning: ")
        await server.address("Umbel runs on")
        assert await server.stop(signal.SIGTERM) == 0


async def test_log_files_that_cannot_be_opened_are_a_configuration_error(directory: Path) -> None:
    (directory / "logs").write_text("a file, not a directory")

    status, output = await ended(*SERVE, cwd=directory)

    assert status == 78
    assert output.startswith("logs.dir: ")
    assert output.count("\n") == 1


async def test_an_address_in_use_is_reported_in_one_sentence(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, output = await ended(*SERVE, "--bind", address, cwd=directory)

    assert status == 78
    assert output == f"bind: cannot listen on {address}: Address already in use\n"


@pytest.mark.parametrize("address", ["", "127.0.0.1:99999", "127.0.0.1", ":8000", "unix:"])
async def test_an_invalid_address_is_reported_in_one_sentence(directory: Path, address: str) -> None:
    status, output = await ended(*SERVE, "--bind", address, cwd=directory)

    assert status == 78
    assert output.startswith(f'--bind: "{address}" is not an address; write HOST:PORT')
    assert output.count("\n") == 1


async def test_ctrl_c_during_the_start_causes_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text(HANGS)

    async with started(*SERVE, "hangs:app", cwd=tmp_path, env={"PYTHONUNBUFFERED": "1"}) as server:
        with trio.fail_after(30):
            while not (tmp_path / "importing").exists():
                await wait_all_tasks_blocked(0.01)
        status = await server.stop(signal.SIGINT)

    assert (status, server.output) == (130, "")


HANGS = """
import time
from pathlib import Path
Path("importing").touch()
time.sleep(600)
"""
"""An application whose import hangs where an operator loses patience."""


@pytest.mark.parametrize("more", [(), ("-w", "1")], ids=["alone", "supervised"])
async def test_a_serving_process_has_its_garbage_collector_tuned(tmp_path: Path, more: tuple[str, ...]) -> None:
    (tmp_path / "told.py").write_text(
        "import gc\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        for kind in ('startup', 'shutdown'):\n"
        "            await receive()\n"
        "            await send({'type': f'lifespan.{kind}.complete'})\n"
        "        return\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    told = repr((gc.get_threshold(), gc.get_freeze_count() > 10_000))\n"
        "    await send({'type': 'http.response.body', 'body': told.encode()})\n"
    )
    command = (*SERVE, *more, "--bind", "127.0.0.1:0", "told:app")
    async with started(*command, cwd=tmp_path, env={BY_EXEC: "1"}) as server:  # A forked one has frozen objects before.
        url = await server.address("Umbel runs on")
        async with httpx.AsyncClient() as client:
            response = await client.get(url)
        await server.stop(signal.SIGTERM)

    assert response.text == repr((THRESHOLDS, True))
