"""The embedded server on real sockets: addresses, signals, and the exceptions of ``serve``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.utils import LifespanFailureError

from tests.support.server.serving import RawClient, add_waiting_handler, app_with_records, connected, fetch, serving
from umbel.server import hypercorn_config, serve


async def test_the_bound_addresses_are_reported_and_served() -> None:
    app, _ = app_with_records()
    stop = trio.Event()
    config = hypercorn_config(bind=["127.0.0.1:0", "127.0.0.1:0"])
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
        assert len(set(addresses)) == 2
        for address in addresses:
            assert address.startswith("http://127.0.0.1:")
            assert (await fetch(int(address.rpartition(":")[2]), "GET", "/hello")).body == b"hello"
        stop.set()


async def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    app, records = app_with_records()
    stop = trio.Event()
    config = hypercorn_config(bind=[f"unix:{tmp_path}/umbel.sock"])
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, app, config, shutdown_trigger=stop.wait))
        async with await trio.open_unix_socket(f"{tmp_path}/umbel.sock") as stream:
            assert (await RawClient(stream).request("GET", "/hello")).body == b"hello"
        stop.set()
    assert records.requests[0].client == ""


@pytest.mark.parametrize("checkpoints", range(4))
async def test_a_cancel_during_an_accept_records_no_crash(checkpoints: int) -> None:
    app, records = app_with_records()
    for _ in range(5):
        async with trio.open_nursery() as nursery:
            [address] = await nursery.start(partial(serve, app, hypercorn_config(bind=["127.0.0.1:0"])))
            port = int(address.rpartition(":")[2])
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel(reason="the caller of serve is cancelled")
        for client in clients:
            client.close()
    assert records.logged == []


async def test_a_port_in_use_raises_an_oserror_with_its_address() -> None:
    app, _ = app_with_records()
    started = []

    @app.before_serving
    async def before() -> None:
        started.append(1)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            await serve(app, hypercorn_config(bind=[address]))
    assert not started


async def test_a_failed_startup_raises_its_error_and_closes_the_sockets() -> None:
    app, _ = app_with_records()

    @app.before_serving
    async def before() -> None:
        raise RuntimeError("no database")

    with pytest.raises(LifespanFailureError, match="no database"):
        await serve(app, hypercorn_config(bind=["127.0.0.1:0"]))


@pytest.mark.parametrize("stock", [True, False], ids=["stock hypercorn", "our serve"])
async def test_a_lifespan_that_crashes_while_serving_ends_the_server(stock: bool) -> None:
    app, records = app_with_records()
    go = trio.Event()

    async def crash() -> None:
        await go.wait()
        raise ValueError("background")

    @app.before_serving
    async def before() -> None:
        app.nursery.start_soon(crash)

    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailureError, match="background"), flatten_subgroups=True):
        async with serving(app, stock=stock) as port:
            assert (await fetch(port, "GET", "/readyz")).status == 200
            go.set()
            await trio.sleep_forever()
    assert [str(note.error) for note in records.logged] == ["background"]


@pytest.mark.parametrize("stock", [True, False], ids=["stock hypercorn", "our serve"])
async def test_a_startup_failure_reported_by_the_application_ends_the_server(stock: bool) -> None:
    app, _ = app_with_records()

    @app.before_serving
    async def before() -> None:
        raise RuntimeError("no database")

    with pytest.RaisesGroup(pytest.RaisesExc(LifespanFailureError, match="no database"), flatten_subgroups=True):
        async with serving(app, stock=stock):
            # Only Hypercorn's own server reports its addresses before the startup has failed.
            assert stock
            await trio.sleep_forever()


async def test_a_cancelled_server_stops_at_once_and_ends_its_lifespan() -> None:
    app, _ = app_with_records()
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            config = hypercorn_config(bind=["127.0.0.1:0"])
            await nursery.start(partial(serve, app, config, shutdown_trigger=trio.sleep_forever))
            nursery.cancel_scope.cancel(reason="test")
    assert app.current_runtime is None


async def test_a_request_in_flight_is_finished_before_a_graceful_stop() -> None:
    app, records = app_with_records()
    began, go = add_waiting_handler(app)
    replies: list[Any] = []

    async def ask(port: int) -> None:
        replies.append(await fetch(port, "GET", "/work"))

    async with trio.open_nursery() as nursery, serving(app, graceful_timeout=5) as port:
        nursery.start_soon(ask, port)
        await began.wait()
        nursery.start_soon(go_soon, go)
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"done")]
    assert records.requests[0].kind is None


async def go_soon(go: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked(0.05)
    go.set()


SCRIPT = """
from umbel.gateway.app import Umbel
import trio
app = Umbel("script", static_folder=None)
@app.get("/hello")
async def hello(): return "hello"
@app.get("/hang")
async def hang():
    print("hanging", flush=True)
    await trio.sleep_forever()
app.run(port=0)
print("stopped", flush=True)
"""


@pytest.fixture
def script(tmp_path: Path) -> Any:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_app_run_serves_until_a_signal(script: Any, number: signal.Signals) -> None:
    address = script.stdout.readline().split()[3]
    async with connected(int(address.rpartition(":")[2])) as client:
        assert (await client.request("GET", "/hello")).body == b"hello"
        script.send_signal(number)
        assert await client.closed_by_server()
    assert script.stdout.readline() == "stopped\n"
    assert script.wait(10) == 0


async def test_a_second_signal_cancels_requests_in_flight(script: Any) -> None:
    address = script.stdout.readline().split()[3]
    async with connected(int(address.rpartition(":")[2])) as client:
        await client.send("GET", "/hang")
        assert script.stdout.readline() == "hanging\n"
        script.send_signal(signal.SIGTERM)
        # The first signal has been handled when the listening socket is closed. Only then send the second one.
        with contextlib.suppress(OSError):
            while True:
                await (await trio.open_tcp_stream("127.0.0.1", int(address.rpartition(":")[2]))).aclose()
        script.send_signal(signal.SIGTERM)
        assert await client.closed_by_server()
    assert script.stdout.readline() == "stopped\n"
    assert script.wait(10) == 0


def test_importing_asgi_with_a_bad_configuration_exits_78(tmp_path: Path) -> None:
    file = tmp_path / "umbel.toml"
    file.write_text('[upstreams.users]\nurls = ["http://127.0.0.1:1"]\ntimeoutt = "1s"\n')
    done = subprocess.run(
        [sys.executable, "-c", "import umbel.asgi"],
        env={**os.environ, "UMBEL_CONFIG": str(file)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert f"{file}:3: upstreams.users.timeoutt" in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_asgi_makes_the_application_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "umbel.toml"
    file.write_text(
        '[upstreams.users]\nurls = ["http://127.0.0.1:1"]\n[[routes]]\npath = "/r"\n'
        '[routes.calls.part]\nupstream = "users"\npath = "/"\n'
    )
    code = "from umbel.asgi import app; print([rule.rule for rule in app.url_map.iter_rules()])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "UMBEL_CONFIG": str(file)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "['/r']"


async def test_the_server_stops_after_max_requests() -> None:
    app, records = app_with_records()
    config = hypercorn_config(bind=["127.0.0.1:0"])
    config.max_requests = 3
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(partial(serve, app, config, shutdown_trigger=trio.sleep_forever))
            for _ in range(3):
                await fetch(int(address.rpartition(":")[2]), "GET", "/hello")
    assert [record.status for record in records.requests] == [200] * 3
