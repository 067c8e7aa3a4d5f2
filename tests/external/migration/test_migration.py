"""examples/migration: the command of each step runs; each gives the same answers, and gains what README.md says."""

from __future__ import annotations

import json
import re
import shlex
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trio
from examples.migration import services
from tools.external import ENVIRONMENTS

from tests.support.process.examples import EXAMPLES
from tests.support.process.processes import Child, started
from tests.support.server.serving import connected, serving

FOLDER = EXAMPLES / "migration"
COMMANDS = {
    name: shlex.split(command)
    for name, command in re.findall(
        r"```sh\ncd examples/migration/(\w+)\n(.*)\n```", (FOLDER / "README.md").read_text()
    )
}
STEPS = list(COMMANDS)
ANSWERED_S_MAX = 5.0
CLIENTS = 5


class Step(NamedTuple):
    """A step that is served, with the services behind it in this process."""

    number: int
    process: Child
    port: int
    client: httpx.AsyncClient
    log: Path

    async def dashboard(self) -> httpx.Response:
        with trio.fail_after(ANSWERED_S_MAX):
            return await self.client.get("/dashboard/42")

    async def lines(self) -> list[dict[str, Any]]:
        """Stop the process and return the lines of its log for requests."""
        await self.process.stop(signal.SIGTERM)
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if "path" in line or "url.path" in line]


@asynccontextmanager
async def serving_step(name: str, scratch: Path) -> AsyncIterator[Step]:
    services.moods.clear()
    services.calls.seen.clear()
    program, *arguments = COMMANDS[name]
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(services.app))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        descriptor, own_port = listener.fileno(), listener.getsockname()[1]
        command = [str(ENVIRONMENTS / "migration" / "bin" / program), *arguments]
        command = [f"fd://{descriptor}" if word == "127.0.0.1:8000" else word for word in command]
        environ = {"SERVICES": f"http://127.0.0.1:{port}", "LOGS_DIR": str(scratch / "logs")}
        process = await stack.enter_async_context(
            started(*command, cwd=FOLDER / name, env=environ, pass_fds=[descriptor])
        )
        await process.line("Application startup complete" if program == "gunicorn" else "Umbel runs on")
        limits = httpx.Limits(max_keepalive_connections=0)
        client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{own_port}", limits=limits, timeout=None)
        await stack.enter_async_context(client)
        try:
            yield Step(STEPS.index(name), process, own_port, client, scratch / "logs" / "access.jsonl")
        finally:
            services.moods.clear()  # What still runs in step 0 can end now, and gunicorn with it.
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    await process.stop(signal.SIGTERM)


def test_the_readme_shows_the_command_of_every_step() -> None:
    assert sorted(STEPS) == sorted(path.name for path in FOLDER.glob("step*"))


@pytest.mark.parametrize("name", STEPS)
async def test_every_step_gives_the_same_answers_and_the_later_ones_gain(name: str, tmp_path: Path) -> None:
    async with serving_step(name, tmp_path) as step:
        page = await step.dashboard()
        order = await step.client.get("/orders/1")
        added = await step.client.post("/orders", json={"sku": "dill", "qty": 2})
        refused = await step.client.post("/orders", json={"sku": "dill", "qty": 0})
        no_json = await step.client.post("/orders", content="{", headers={"content-type": "application/json"})
        missing = [(await step.client.get(path)).status_code for path in ("/dashboard/99", "/orders/77")]
        no_number = await step.client.get("/dashboard/x")
        services.moods["offers"] = "fail"
        partial = await step.dashboard()
        services.moods["users"] = "flaky"
        services.calls.seen.clear()
        repeated = await step.dashboard()
        lines = await step.lines()

    assert page.json() == {
        "name": "Ada",
        "orders": [services.ORDERS[1], services.ORDERS[2]],
        "offers": ["Sow now: dill at half price"],
    }
    assert (order.status_code, order.json()) == (200, services.ORDERS[1])
    assert (added.status_code, added.json()) == (201, {"id": 3, "sku": "dill", "qty": 2})
    assert (refused.status_code, missing) == (422, [404, 404])
    composes = step.number >= 3
    assert (no_json.status_code, no_number.status_code) == ((400, 404) if composes else (422, 422))
    assert no_json.headers["content-type"] == ("application/problem+json" if composes else "application/json")
    assert (partial.status_code, partial.json()) == (200, {**page.json(), "offers": None})
    assert partial.headers.get("umbel-completed") == ("false" if composes else None)
    assert ('next-hop="offers"' in partial.headers.get("proxy-status", "")) is composes
    assert repeated.status_code == (200 if step.number >= 2 else 502)
    if step.number:  # The tasks that write the last lines of step 0 may be lost.
        assert len(lines) == 10
    if composes:
        of_page = next(line for line in lines if line["url.path"] == "/dashboard/42" and line["completed"])
        assert [call["outcome"] for call in of_page["calls"]] == ["ok"] * 3


@pytest.mark.parametrize("name", STEPS)
async def test_only_step_0_goes_on_after_clients_have_left(name: str, tmp_path: Path) -> None:
    async with serving_step(name, tmp_path) as step:
        services.moods["orders"] = "drip"
        async with AsyncExitStack() as clients:
            for _ in range(CLIENTS):
                client = await clients.enter_async_context(connected(step.port))
                await client.send("GET", "/dashboard/42")
            with trio.fail_after(ANSWERED_S_MAX):
                await services.calls.until(orders=CLIENTS)
        for _ in range(20):  # Each worker has noticed by then that the client has left.
            assert (await step.client.get("/nothing")).status_code == 404
        if step.number == 0:
            assert services.calls.running["orders"] == CLIENTS
        else:
            with trio.fail_after(ANSWERED_S_MAX):
                await services.calls.until()
            services.moods.clear()
            if step.number >= 2:  # The pool has outlived the cancelled calls.
                assert (await step.dashboard()).status_code == 200
            # It was not the deadline that has ended the request.
            statuses = {line.get("status", line.get("http.response.status_code")) for line in await step.lines()}
            assert 504 not in statuses


@pytest.mark.parametrize("name", STEPS)
async def test_what_a_slow_or_failing_service_costs_at_each_step(name: str, tmp_path: Path) -> None:
    async with serving_step(name, tmp_path) as step:
        services.moods["orders"] = "drip"
        if step.number == 0:
            with pytest.raises(trio.TooSlowError):
                await step.dashboard()
        else:
            assert (await step.dashboard()).status_code == 504
            with trio.fail_after(ANSWERED_S_MAX):
                await services.calls.until()
        services.moods["users"] = "fail"
        before = services.calls.running["orders"]
        # From step 1 on a nursery answers when its calls have ended: not 504, so it was not the deadline.
        assert (await step.dashboard()).status_code == 502
        with trio.fail_after(ANSWERED_S_MAX):
            await services.calls.until(**({"orders": before + 1} if step.number == 0 else {}))
        # A breaker opens after 20 calls, and each of the two workers has one.
        del services.moods["orders"]
        services.calls.seen.clear()
        assert {(await step.dashboard()).status_code for _ in range(60)} <= {502, 503}
        assert (services.calls.seen["users"] < 60) is (step.number >= 2)
