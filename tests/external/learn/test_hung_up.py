"""What lab 2 says of uvicorn, alone and as gunicorn's worker: it ends no handler whose client has left."""

from __future__ import annotations

import signal
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from tools.external import ENVIRONMENTS

from tests.support.process.processes import started

PYTHON = str(ENVIRONMENTS / "learn" / "bin" / "python")
FOLDER = str(Path(__file__).parent)
COMMANDS = {
    "uvicorn": [
        *("uvicorn", "--port", "0", "--timeout-graceful-shutdown", "1"),
        *("--app-dir", FOLDER, "hung_up:app"),
    ],
    "gunicorn": [
        *("gunicorn", "--worker-class", "uvicorn_worker.UvicornWorker", "--bind", "127.0.0.1:0"),
        *("--graceful-timeout", "1", "--chdir", FOLDER, "hung_up:app"),
    ],
}
CLIENTS = 20


async def until_running(client: httpx.AsyncClient, path: str, count: int) -> None:
    """Ask until so many calls of ``path`` run."""
    with trio.fail_after(20):
        while int((await client.get(f"/running?{path}")).text) != count:
            pass


@pytest.mark.parametrize("server", list(COMMANDS))
async def test_calls_of_clients_that_left_run_on(server: str, tmp_path: Path) -> None:
    async with started(PYTHON, "-m", *COMMANDS[server], cwd=tmp_path) as child:
        address = await child.address()
        port = urlsplit(address).port
        assert port is not None
        async with httpx.AsyncClient(base_url=address, trust_env=False) as client, trio.open_nursery() as nursery:
            nursery.start_soon(child.follow)
            for path, calls in (("/gather", 5), ("/taskgroup", 5), ("/listening", 1)):
                streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(CLIENTS)]
                for stream in streams:
                    await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: lab\r\n\r\n".encode())
                await until_running(client, path, CLIENTS * calls)
                for stream in streams:
                    await stream.aclose()
            # The clients of this path left last, and its handler is told: so all others have been noticed too.
            await until_running(client, "/listening", 0)
            for path in ("/gather", "/taskgroup"):
                await until_running(client, path, CLIENTS * 5)
            nursery.cancel_scope.cancel(reason="the test is over")
        await child.stop(signal.SIGTERM)
