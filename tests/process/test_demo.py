"""``umbel demo`` as a process: output, Ctrl-C, and exit statuses."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.support.process.processes import PYTHON, ended, started
from tests.support.process.terminal import on_terminal

DEMO = (PYTHON, "-m", "umbel", "demo")


async def test_once_prints_a_response_and_exits_with_0(tmp_path: Path) -> None:
    status, output = await ended(*DEMO, "--once", cwd=tmp_path)

    assert status == 0, output
    head, _, body = output.partition("\n\n")[2].partition("\n\n")
    assert re.match(r"GET http://127\.0\.0\.1:\d+/dashboard/42\n\n", output)
    assert head.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "umbel-completed: true" in head
    assert "server" not in [line.partition(":")[0] for line in head.splitlines()]
    answer = json.loads(body)
    assert answer["name"] == "Ada"
    assert [item["sku"] for item in answer["items"]] == [order["sku"] for order in answer["orders"]]
    assert answer["offers"]


async def test_once_with_a_failing_service_prints_the_problem_and_exits_with_1(tmp_path: Path) -> None:
    status, output = await ended(*DEMO, "--once", "--fail", "users", cwd=tmp_path)

    assert status == 1
    assert "HTTP/1.1 502" in output
    assert "content-type: application/problem+json" in output


async def test_an_unknown_service_is_a_usage_error_that_names_the_known_ones(tmp_path: Path) -> None:
    status, output = await ended(*DEMO, "--slow", "user", cwd=tmp_path)

    assert status == 2
    assert "'user' is not one of 'users', 'orders', 'catalog', 'offers'" in output


async def test_the_demo_runs_until_ctrl_c_and_ends_without_a_traceback(tmp_path: Path) -> None:
    async with started(*DEMO, "--port", "0", "--slow", "offers", cwd=tmp_path) as demo, httpx.AsyncClient() as client:
        url = await demo.address("Umbel runs on")
        await demo.line("goes to logs/access.jsonl")
        response = await client.get(f"{url}/dashboard/42")
        status = await demo.stop(signal.SIGINT)

    assert response.status_code == 200
    assert response.headers["umbel-completed"] == "false"
    assert response.json()["offers"] is None
    assert status == 0
    assert demo.output.endswith("Stopped.\n")
    assert "Traceback" not in demo.output
    access, calls, app = (_records(tmp_path / "logs" / f"{name}.jsonl") for name in ("access", "calls", "app"))
    assert [(record["url.path"], record["completed"]) for record in access] == [("/dashboard/42", False)]
    assert [part["name"] for part in access[0]["calls"]] == ["profile", "orders", "items", "offers"]
    assert [record["call"] for record in calls] == ["offers"]  # The others are ordinary calls.
    assert {record["request_id"] for record in (*access, *calls)} == {response.headers["x-request-id"]}
    assert app[-1]["event"] == "log.closed"


async def test_each_command_that_the_demo_shows_works(tmp_path: Path) -> None:
    async with started(*DEMO, "--port", "0", cwd=tmp_path) as demo, httpx.AsyncClient() as client:
        url = await demo.address("Umbel runs on")
        await demo.line("goes to logs/access.jsonl")
        assert f"curl -i {url}/dashboard/42 " in demo.output
        assert f"curl -N -H 'Accept: application/x-ndjson' {url}/dashboard/42 " in demo.output

        whole = await client.get(f"{url}/dashboard/42")
        stream = await client.get(f"{url}/dashboard/42", headers={"accept": "application/x-ndjson"})

    lines = [json.loads(line) for line in stream.text.splitlines()]
    assert whole.headers["umbel-completed"] == "true"
    assert (lines[-1]["completed"], lines[-1]["answer"]) == (True, whole.json())


async def test_traffic_is_announced_in_one_line_and_ends_with_the_demo(tmp_path: Path) -> None:
    async with started(*DEMO, "--port", "0", "--traffic", "--seed", "7", cwd=tmp_path) as demo:
        line = await demo.line("Traffic: ")
        with trio.fail_after(10):
            access = trio.Path(tmp_path / "logs" / "access.jsonl")
            while not await access.read_text():  # noqa: ASYNC110  # there is no event of it
                await trio.sleep(0.05)
        status = await demo.stop(signal.SIGINT)

    assert line == "Traffic: 20 requests per second, some of which go wrong (seed 7)."
    assert status == 0
    assert demo.output.endswith("Stopped.\n")
    assert "Traceback" not in demo.output


@pytest.mark.parametrize("options", [["--once", "--traffic"], ["--seed", "7"]])
async def test_options_of_traffic_that_mean_nothing_are_a_usage_error(tmp_path: Path, options: list[str]) -> None:
    status, output = await ended(*DEMO, *options, cwd=tmp_path)

    assert status == 2
    assert "--traffic" in output.splitlines()[-1]


async def test_a_port_in_use_is_one_clear_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = await ended(*DEMO, "--port", str(port), cwd=tmp_path)

    assert status == 78
    assert output == f"bind: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def _records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_the_demo_says_first_where_its_console_and_its_gateway_are(tmp_path: Path) -> None:
    async with on_terminal(tmp_path, "demo", "--traffic", "--port", "0", whole=True) as program:
        await program.until(r"Traffic: ")
    first, second, *_ = program.shown.splitlines()
    assert first.startswith("The console (this URL opens it once): http://127.0.0.1:9")
    assert second.startswith("Umbel runs on http://127.0.0.1:")
