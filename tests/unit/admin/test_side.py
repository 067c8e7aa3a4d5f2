"""The admin side as a whole: what it serves where, and that it opens again after each kind of failure."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.process.admin import ask_admin
from tests.unit.admin.test_connections import Source
from umbel.admin import listeners
from umbel.admin import side as module
from umbel.admin.settings import AdminSettings, SocketPlace
from umbel.admin.side import REPORTED_S, AdminSide, OnceReporter
from umbel.core.errors import ConfigError

TOKEN = "0123456789abcdef"


class Reports(list[str]):
    """The failures that were reported."""

    def __call__(self, event: str, sentence: str) -> None:
        self.append(f"{event}: {sentence}")


@pytest.fixture(autouse=True)
def _short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets are opened in threads, which virtual time would not wait for."""
    for name in ("CHECK_S", "DELAY_S_MIN", "DELAY_S_MAX"):
        monkeypatch.setattr(module, name, 0.001)


@asynccontextmanager
async def running(side: AdminSide) -> AsyncIterator[None]:
    side.open_addresses()
    async with trio.open_nursery() as nursery:
        await nursery.start(side.run, Source())
        yield
        nursery.cancel_scope.cancel(reason="the test is over")


def settings(directory: Path, **keys: Any) -> AdminSettings:
    return AdminSettings(SocketPlace(directory, "admin", creates=True), **keys)


async def works_again(path: Path) -> None:
    """Wait until the socket answers."""
    with trio.fail_after(10):
        while True:
            try:
                assert (await ask_admin(path, "GET", "/livez"))[0] == 200
            except (OSError, trio.BrokenResourceError):
                await trio.sleep(0.001)
            else:
                return


async def get(address: str, target: str, **fields: str) -> tuple[int, str]:
    """Send one request over TCP; return the status and the head of the response."""
    host, port = address.rsplit(":", 1)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in ({"host": address} | fields).items())
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\n{lines}connection: close\r\n\r\n".encode())
        received = b"".join([piece async for piece in stream])
    return int(received.split()[1]), received.partition(b"\r\n\r\n")[0].decode()


async def test_each_address_serves_its_paths_to_those_that_it_lets_in(tmp_path: Path) -> None:
    side = AdminSide(settings(tmp_path, bind="127.0.0.1:0", token=TOKEN, metrics="localhost:0"), Reports())
    async with running(side):
        assert (await ask_admin(tmp_path / "admin.sock", "GET", "/livez"))[0] == 200
        url = side.page_url()
        assert url is not None
        page, _, query = url.removeprefix("http://").partition("/")
        [metrics] = [each.listener.address for each in side._addresses if each.scraper and each.listener]
        assert (await get(page, "/livez"))[0] == 401
        assert (await get(page, "/livez", authorization=f"Bearer {TOKEN}"))[0] == 200
        status, head = await get(page, f"/{query}")
        assert (status, "location: /\r\n" in head) == (303, True)
        cookie = head.partition("set-cookie: ")[2].partition(";")[0]
        assert (await get(page, "/", cookie=cookie))[0] == 200
        assert (await get(page, f"/{query}"))[0] == 401
        status, answer = await ask_admin(tmp_path / "admin.sock", "POST", "/ctl/url")
        assert (status, answer["url"].startswith(f"http://{page}/?token=")) == (200, True)
        again = answer["url"].removeprefix(f"http://{page}")
        assert [(await get(page, again))[0] for _ in range(2)] == [303, 401]
        assert [(await get(metrics, path))[0] for path in ("/metrics", "/status", "/ctl/stop")] == [200, 404, 404]
    assert not (tmp_path / "admin.sock").exists()


@pytest.mark.parametrize("fields", [{}, {"accept": "text/html"}], ids=["client", "browser"])
async def test_every_answer_forbids_storing_sniffing_framing_and_referrers(
    fields: dict[str, str], tmp_path: Path
) -> None:
    side = AdminSide(settings(tmp_path, bind="127.0.0.1:0", token=TOKEN), Reports())
    async with running(side):
        url = side.page_url()
        assert url is not None
        page, _, query = url.removeprefix("http://").partition("/")
        answers = [
            await get(page, "/", **fields),
            await get(page, f"/{query}", **fields),
            await get(page, "/", authorization=f"Bearer {TOKEN}", **fields),
            await get(page, "/status", authorization=f"Bearer {TOKEN}", **fields),
            await get(page, "/nothing", authorization=f"Bearer {TOKEN}", **fields),
            await get(page, "/", **fields | {"host": "evil.example"}),
            await get(page, "/" + "x" * 9000, **fields),
        ]
    assert [status for status, _ in answers] == [401, 303, 200, 200, 404, 421, 414]
    for _, head in answers:
        assert "cache-control: no-store" in head
        assert "x-content-type-options: nosniff" in head
        assert "referrer-policy: no-referrer" in head
        assert "frame-ancestors 'none'" in head
        assert "default-src 'self'" in head


def remove_socket(directory: Path) -> None:
    (directory / "admin.sock").unlink()


def remove_directory(directory: Path) -> None:
    shutil.rmtree(directory)


@pytest.mark.parametrize("remove", [remove_socket, remove_directory])
async def test_a_removed_socket_or_directory_is_made_again_and_reported_once(
    remove: Callable[[Path], None], tmp_path: Path
) -> None:
    directory, reports = tmp_path / "logs", Reports()
    async with running(AdminSide(settings(directory), reports)):
        for _ in range(3):
            remove(directory)
            await works_again(directory / "admin.sock")
    assert [report.split(":")[0] for report in reports] == ["admin.removed"]


async def test_a_socket_that_cannot_be_opened_is_tried_again_and_reported_once(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").write_text("in the way")
    reports = Reports()
    async with running(AdminSide(settings(tmp_path), reports)):
        await trio.sleep(0.02)
        (tmp_path / "admin.sock").unlink()
        await works_again(tmp_path / "admin.sock")
    assert len(reports) == 1
    assert f"{tmp_path}/admin.sock is a regular file" in reports[0]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), ValueError("a defect"), BaseExceptionGroup("", [KeyError("x")])],
    ids=["EMFILE", "defect", "group"],
)
async def test_an_address_whose_server_fails_is_served_again_and_reported_once(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, serve = [error] * 3, module.serve_connections

    async def failing(*arguments: Any) -> None:
        if failures and not arguments[0]._paths == frozenset({"/metrics"}):
            raise failures.pop()
        await serve(*arguments)

    monkeypatch.setattr(module, "serve_connections", failing)
    reports = Reports()
    side = AdminSide(settings(tmp_path, metrics="127.0.0.1:0"), reports)
    async with running(side):
        await works_again(tmp_path / "admin.sock")
        [metrics] = [each.listener.address for each in side._addresses if each.scraper and each.listener]
        assert (await get(metrics, "/metrics"))[0] == 200
    assert failures == []
    assert [report.split(":")[0] for report in reports] == ["admin.closed"]


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Lower the limit of descriptors while the block runs, so that this process may open only so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(soft) if number not in taken]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count - 1] + 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_lack_of_descriptors_pauses_accepting_and_is_reported_once(tmp_path: Path) -> None:
    reports = Reports()
    async with running(AdminSide(settings(tmp_path), reports)), AsyncExitStack() as stack:
        with descriptors_left(3):
            for _ in range(2):  # Each needs a descriptor here, and another one where it is accepted.
                stack.push_async_callback((await trio.open_unix_socket(tmp_path / "admin.sock")).aclose)
            with trio.fail_after(10):
                while not reports:
                    await trio.lowlevel.checkpoint()
            await trio.sleep(0.25)  # Longer than two pauses.
        await works_again(tmp_path / "admin.sock")
    assert [report.split(":")[0] for report in reports] == ["admin.accept.paused"]


async def test_a_cancel_during_a_failure_passes_and_the_failure_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*arguments: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("a defect in the cleanup")

    monkeypatch.setattr(module, "serve_connections", failing)
    reports = Reports()
    async with running(AdminSide(settings(tmp_path), reports)):
        await trio.testing.wait_all_tasks_blocked()
    assert "a defect in the cleanup" in reports[0]


async def test_a_cancel_while_a_socket_is_opened_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening, may_go_on, opened = trio.Event(), threading.Event(), list[Any]()
    token = trio.lowlevel.current_trio_token()
    open_listener = module.unix_listener

    def slow(place: SocketPlace) -> Any:
        token.run_sync_soon(opening.set)
        may_go_on.wait()
        opened.append(open_listener(place))
        return opened[0]

    monkeypatch.setattr(module, "unix_listener", slow)
    side = AdminSide(settings(tmp_path), Reports())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.run, Source())
        await opening.wait()
        nursery.cancel_scope.cancel(reason="the test cancels the opening")
    may_go_on.set()
    with trio.fail_after(10):
        while not opened or opened[0].socket.fileno() != -1:
            await trio.lowlevel.checkpoint()
    assert not (tmp_path / "admin.sock").exists()


def test_a_configured_address_that_is_taken_is_an_error_and_closes_the_others(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        side = AdminSide(settings(tmp_path, bind="127.0.0.1:0", token=TOKEN, metrics=address), Reports())
        with pytest.raises(ConfigError, match=f"^admin.metrics: cannot listen on {address}: Address already in use"):
            side.open_addresses()
        assert side.page_url() is None
        reports = Reports()
        side = AdminSide(settings(tmp_path, bind=address, token=TOKEN), reports)
        side.open_addresses(strict=False)
        assert side.page_url() is None
        assert [report.split(":")[0] for report in reports] == ["admin.closed"]


@pytest.mark.parametrize(
    ("bind", "shown"), [("0.0.0.0:0", "http://127.0.0.1:"), ("[::]:0", "http://[::1]:"), (None, "http://127.0.0.1:")]
)
def test_the_url_for_a_terminal_names_an_address_that_a_browser_reaches(
    bind: str | None, shown: str, tmp_path: Path
) -> None:
    token = None if bind is None else TOKEN
    side = AdminSide(settings(tmp_path, bind=bind, token=token), Reports(), terminal=listeners.terminal_listener)
    side.open_addresses()
    try:
        first, second = side.page_url(), side.page_url()
        assert first is not None
        assert first.startswith(shown)
        assert first != second
        assert TOKEN not in first
    finally:
        side.close()


def test_a_terminal_without_a_free_port_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(listeners, "TERMINAL_PORTS", [taken.getsockname()[1]])
        reports = Reports()
        side = AdminSide(settings(tmp_path), reports, terminal=listeners.terminal_listener)
        side.open_addresses()
    assert side.page_url() is None
    assert "no port of 127.0.0.1" in reports[0]


def test_a_kind_of_failure_is_reported_again_after_it_was_absent() -> None:
    now, reports = [0.0], Reports()
    once = OnceReporter(reports, clock=lambda: now[0])
    lasting = [(at, "a /x") for at in range(0, 2000, 30)]  # It lasts, and is tried again and again.
    for at, kind in (*lasting, (2000, "a /y"), (2000 + REPORTED_S, "a /x")):
        now[0] = at
        once(kind, str(at))
    assert reports == ["a: 0", "a: 2000", f"a: {2000 + REPORTED_S}"]
    for number in range(1000):
        once(f"kind {number}", "")
    assert len(reports) < 110


def test_the_token_is_in_no_representation_of_the_settings(tmp_path: Path) -> None:
    assert TOKEN not in repr(settings(tmp_path, bind="127.0.0.1:0", token=TOKEN))
    assert os.fspath(tmp_path) in repr(settings(tmp_path))
