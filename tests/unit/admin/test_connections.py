"""The admin side with slow, silent and numerous clients, on the autojump clock: none delays another one."""

from __future__ import annotations

import resource
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.process.admin import ask_admin, ask_admin_bytes
from umbel.admin.answer import ANSWER_S
from umbel.admin.connections import CONNECTIONS_MAX, connections_max, serve_connections
from umbel.admin.guard import UnixGuard
from umbel.admin.site import BODY_BYTES_MAX, AdminSite, prefers_openmetrics
from umbel.admin.source import CommandError, Metrics, Topic

HEAD = b"GET /status HTTP/1.1\r\nhost: x\r\n"


class Source:
    """A source whose methods are those that a test sets."""

    def __init__(self, status: Callable[[], Awaitable[dict[str, Any]]] | None = None) -> None:
        self._status = status
        self.commands: list[tuple[str, bytes]] = []

    async def status(self) -> dict[str, Any]:
        return {"process": {"state": "serving"}} if self._status is None else await self._status()

    async def slow(self) -> dict[str, Any]:
        return {"requests": []}

    async def slow_request(self, request: str) -> dict[str, Any] | None:
        return {"id": request} if request == "1-2" else None

    async def plan(self, route: str) -> dict[str, Any] | None:
        return {"route": route} if route == "/a/<id>" else None

    async def configuration(self) -> dict[str, Any]:
        return {"rows": []}

    async def trees(self) -> list[Any]:
        return []

    async def lints(self) -> list[Any]:
        return [{"name": "lag"}]

    def topics(self) -> dict[str, Topic]:
        return {}

    async def metrics(self, *, openmetrics: bool) -> Metrics:
        return Metrics("text/plain", b"openmetrics" if openmetrics else b"classic")

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        return False, {"state": "stopping"}

    async def command(self, name: str, arguments: bytes) -> dict[str, Any]:
        self.commands.append((name, arguments))
        if name == "kill":
            raise CommandError("there is no such slot")
        return {"name": name}


@asynccontextmanager
async def serving(directory: Path, source: Source, reports: list[str] | None = None) -> AsyncIterator[Path]:
    def report(event: str, sentence: str) -> None:
        assert reports is not None, sentence
        reports.append(f"{event}: {sentence}")

    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(str(path))
        listener.listen(5 * CONNECTIONS_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connections, AdminSite(source, UnixGuard(), report), listener, report)
            yield path
            nursery.cancel_scope.cancel(reason="the test is over")


async def closed_after(stream: trio.SocketStream, pieces: Iterable[bytes] = (), every: float = 1.0) -> float:
    """Send pieces until the server closes the connection; return the seconds."""
    began = trio.current_time()

    async def drip() -> None:
        try:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.sleep(every)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        with trio.fail_after(1000):
            try:
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
        nursery.cancel_scope.cancel(reason="closed")
    return trio.current_time() - began


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"GET /",),
        (b"GET /", *[b"x"] * 1000),
        (HEAD + b"\r\n",),
        (b"POST /ctl/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n", b"{", b"}", b" "),
    ],
    ids=["nothing", "half of a head", "single bytes", "no second request", "half of a body"],
)
async def test_a_request_that_does_not_come_within_5_s_closes_the_connection(
    pieces: Iterable[bytes], tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path, source := Source()) as path, await trio.open_unix_socket(path) as stream:
        assert await closed_after(stream, pieces) <= 5
    assert source.commands == []


async def test_an_answer_that_is_not_read_in_time_closes_the_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def large() -> dict[str, Any]:
        return {"process": "x" * 10_000_000}

    async with serving(tmp_path, Source(large)) as path, await trio.open_unix_socket(path) as stream:
        await stream.send_all(HEAD + b"\r\n")
        await trio.sleep(ANSWER_S + 1)
        received = 0
        with trio.fail_after(1), pytest.raises(trio.BrokenResourceError):
            while data := await stream.receive_some(10**6):
                received += len(data)
            raise trio.BrokenResourceError
        assert received < 10_000_000


async def test_any_number_of_silent_clients_delays_no_other_client(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path, Source()) as path:
        silent = [await trio.open_unix_socket(path) for _ in range(3 * CONNECTIONS_MAX)]
        await wait_all_tasks_blocked()
        began = trio.current_time()
        answers = [await ask_admin(path, "GET", "/status") for _ in range(10)]
        assert trio.current_time() == began
        assert [status for status, _ in answers] == [200] * 10
        for stream in silent:
            await stream.aclose()


@pytest.mark.parametrize(
    ("descriptors", "expected"),
    [(20, 2), (64, 4), (256, 16), (1024, CONNECTIONS_MAX), (10**6, CONNECTIONS_MAX), (resource.RLIM_INFINITY, 64)],
)
async def test_idle_connections_leave_most_descriptors_to_the_process(
    descriptors: int, expected: int, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert connections_max() == expected
    async with serving(tmp_path, Source()) as path:
        idle = [await trio.open_unix_socket(path) for _ in range(expected + 3)]
        await wait_all_tasks_blocked()
        closed, _, _ = select.select([stream.socket.fileno() for stream in idle], [], [], 0)
        assert len(closed) == 3
        assert (await ask_admin(path, "GET", "/status"))[0] == 200
        for stream in idle:
            await stream.aclose()


@pytest.mark.parametrize(
    ("accept", "preferred"),
    [
        (b"application/openmetrics-text;version=1.0.0;q=0.5, text/plain;q=0.2, */*;q=0.1", True),
        (b"Application/OpenMetrics-Text ; version=1.0.0", True),
        (b"application/openmetrics-text;q=0, text/plain", False),
        (b"application/openmetrics-text; Q=0.000", False),
        (b"text/plain;q=0.9, application/openmetrics-text;q=0.8", False),
        (b"application/openmetrics-text;q=0, application/openmetrics-text;version=1.0.0;q=0.3", True),
        (b"application/openmetrics-text;q=x", True),
        (b"application/openmetrics-textual", False),
        (b"*/*", False),
        (b"", False),
    ],
)
def test_the_form_of_metrics_is_that_which_accept_prefers(accept: bytes, preferred: bool) -> None:
    assert prefers_openmetrics(accept) is preferred


async def test_a_long_command_delays_no_other_command(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def slow() -> dict[str, Any]:
        await trio.sleep(100)
        return {}

    async with serving(tmp_path, Source(slow)) as path:
        waiting = [await trio.open_unix_socket(path) for _ in range(CONNECTIONS_MAX // 2)]
        for stream in waiting:
            await stream.send_all(HEAD + b"\r\n")
        await wait_all_tasks_blocked()
        assert (await ask_admin(path, "POST", "/ctl/stop"))[0] == 200
        assert trio.current_time() == 0
        for stream in waiting:
            await stream.aclose()


async def test_a_connection_beyond_the_bound_is_closed_while_all_others_are_answered(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async def slow() -> dict[str, Any]:
        await trio.sleep(100)
        return {"process": {}}

    async with serving(tmp_path, Source(slow)) as path:
        waiting = [await trio.open_unix_socket(path) for _ in range(CONNECTIONS_MAX)]
        for stream in waiting:
            await stream.send_all(HEAD + b"connection: close\r\n\r\n")
        await wait_all_tasks_blocked()
        async with await trio.open_unix_socket(path) as further:
            assert await further.receive_some() == b""
        for stream in waiting:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            await stream.aclose()
        assert (await ask_admin(path, "POST", "/ctl/stop"))[0] == 200


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "said"),
    [
        ("GET", "/livez", b"", 200, b'{"status":"live"}'),
        ("GET", "/readyz", b"", 503, b'{"status":"not ready","state":"stopping"}'),
        ("GET", "/tree", b"", 200, b'{"trees":[]}'),
        ("GET", "/lints", b"", 200, b'{"lints":[{"name":"lag"}]}'),
        ("GET", "/slow", b"", 200, b'{"requests":[]}'),
        ("GET", "/slow/1-2?x", b"", 200, b'{"id":"1-2"}'),
        ("GET", "/slow/1-3", b"", 404, b"No such request is kept (any more): GET /slow lists those that are."),
        ("GET", "/slow/", b"", 404, b"No such request is kept"),
        ("POST", "/slow/1-2", b"", 405, b"Send GET."),
        ("GET", "/plan?route=%2Fa%2F%3Cid%3E", b"", 200, b'{"route":"/a/<id>"}'),
        ("GET", "/plan?route=/b", b"", 404, b"No configured route has this path"),
        ("GET", "/plan", b"", 404, b"No configured route has this path"),
        ("GET", "/plan?a=1&b=2", b"", 404, b"No configured route has this path"),
        ("GET", "/config", b"", 200, b'{"rows":[]}'),
        ("GET", "/", b"", 200, b"<h1>Umbel: serving</h1>"),
        ("GET", "/metrics", b"", 200, b"classic"),
        ("GET", "/nothing", b"", 404, b"The paths are /, /config, /ctl/drain, "),
        ("GET", "/ctl/stop", b"", 405, b"Send POST."),
        ("POST", "/status", b"", 405, b"Send GET."),
        ("DELETE", "/", b"", 405, b"Send GET."),
        ("POST", "/ctl/dance", b"", 404, b'\\"dance\\" is not a command; the commands are scale, reload, '),
        ("POST", "/ctl/kill", b"", 409, b"there is no such slot"),
        ("POST", "/ctl/url", b"", 409, b"no address serves the page; set bind and token in [admin], or "),
        ("POST", "/ctl/scale", b'{"count":2}', 200, b'{"name":"scale"}'),
        ("POST", "/ctl/scale", b" " * (BODY_BYTES_MAX + 1), 413, b"Content Too Large"),
        ("GET", f"/{'x' * 5000}", b"", 414, b"URI Too Long"),
    ],
)
async def test_each_path_has_its_methods_and_answers(
    method: str, target: str, body: bytes, status: int, said: bytes, tmp_path: Path
) -> None:
    async with serving(tmp_path, Source()) as path:
        received, content = await ask_admin_bytes(path, method, target, body)
    assert (received, said in content) == (status, True), content


async def test_a_source_that_raises_gets_a_500_and_one_report_and_ends_nothing(tmp_path: Path) -> None:
    async def broken() -> dict[str, Any]:
        raise ValueError("no state")

    reports: list[str] = []
    async with serving(tmp_path, Source(broken), reports) as path:
        assert (await ask_admin(path, "GET", "/status"))[0] == 500
        assert (await ask_admin(path, "POST", "/ctl/stop"))[0] == 200
    [report] = reports
    assert report.startswith("admin.failed /status: the admin side cannot answer /status: ValueError")


async def test_a_client_that_leaves_during_a_command_is_no_failure(tmp_path: Path, autojump_clock: MockClock) -> None:
    ended = trio.Event()

    async def slow() -> dict[str, Any]:
        await trio.sleep(100)
        ended.set()
        return {}

    async with serving(tmp_path, Source(slow)) as path:
        stream = await trio.open_unix_socket(path)
        await stream.send_all(HEAD + b"\r\n")
        await wait_all_tasks_blocked()
        await stream.aclose()
        await ended.wait()
        assert (await ask_admin(path, "POST", "/ctl/stop"))[0] == 200
