"""The admin side of a process without a master: its thread answers, ends with its block, and ends nothing."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.logs.records import Records
from tests.support.observe.timelines import partial_answer
from tests.support.process.admin import ask_admin, ask_admin_bytes
from umbel.admin.settings import AdminSettings, SocketPlace
from umbel.admin.source import LEVEL_NEEDED
from umbel.core.errors import ConfigError
from umbel.logs.records.level import LevelName
from umbel.observe.catalogue import IN_FLIGHT
from umbel.observe.figures import ProcessFigures
from umbel.observe.kept_requests import KeptRequests
from umbel.observe.lints.tasks import ObservedQueue
from umbel.observe.process import process_side as module
from umbel.observe.process.observed_loop import ANSWER_S, BEAT_S, ObservedLoop
from umbel.observe.process.process_side import AdminOptions, process_admin
from umbel.observe.request_counts import CountingRecorder
from umbel.observe.tree.reader import Frames

TOKEN = "0123456789abcdef"


class View:
    """A view that counts."""

    def __init__(self, state: str = "serving") -> None:
        self._state = state
        self.reopened = 0
        self.lost = 0
        self.level = "info"
        self.kept: KeptRequests | None = None
        self.thread = threading.get_ident()

    def state(self) -> str:
        assert threading.get_ident() == self.thread
        return self._state

    def statistics(self) -> dict[str, Any]:
        return {"server": {"connections": 3}, "app": {}}

    def figures(self) -> ProcessFigures:
        assert threading.get_ident() == self.thread
        return ProcessFigures(process="main", pid=1, values={IN_FLIGHT.name: [((), 7.0)]})

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        return True, {"state": self._state}

    def kept_requests(self) -> KeptRequests | None:
        return self.kept

    def queues(self) -> list[ObservedQueue]:
        assert threading.get_ident() == self.thread
        return [ObservedQueue("the log access", 2, self.lost)]

    def frames(self) -> Frames:
        return {}

    def set_log_level(self, level: LevelName) -> bool:
        assert threading.get_ident() == self.thread
        self.level = level
        return True

    async def reopen(self) -> None:
        assert threading.get_ident() == self.thread
        await trio.lowlevel.checkpoint()
        self.reopened += 1


class Reports(list[str]):
    """The failures that were reported."""

    def __call__(self, event: str, sentence: str) -> None:
        self.append(f"{event}: {sentence}")


def settings(directory: Path, **keys: Any) -> AdminSettings:
    return AdminSettings(SocketPlace(directory, "admin"), **keys)


def block(seconds: float) -> None:
    """Block the event loop."""
    time.sleep(seconds)


def living() -> list[str]:
    """The names of the threads of admin sides."""
    return [thread.name for thread in threading.enumerate() if thread.name == "umbel-admin"]


BLOCKING_LINE = block.__code__.co_firstlineno + 2


class Asker:
    """Asks the admin side from a thread of its own, as another process does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.answers: dict[str, Any] = {}

    def ask(self, *targets: str) -> None:
        async def main() -> None:
            for target in targets:
                status, content = await ask_admin_bytes(self._path, "GET", target)
                self.answers[target] = status, content.decode()

        trio.run(main)

    @contextmanager
    def asking(self, *targets: str) -> Iterator[None]:
        """Ask while the block runs; the block must block the event loop."""
        thread = threading.Thread(target=self.ask, args=targets)
        thread.start()
        yield
        thread.join()


async def test_state_tree_figures_and_commands_come_from_the_event_loop(tmp_path: Path) -> None:
    view, path = View(), tmp_path / "admin.sock"
    async with process_admin(view, settings(tmp_path), Reports()):
        assert living() == ["umbel-admin"]
        status, answer = await ask_admin(path, "GET", "/status")
        assert (status, answer["process"]["state"], answer["server"]) == (200, "serving", {"connections": 3})
        _, answer = await ask_admin(path, "GET", "/tree")
        [tree] = answer["trees"]
        assert tree["process"] == "main"
        assert tree["root"]["name"] == "<init>"
        assert '"function":"_AdminThread.run"' in json.dumps(tree, separators=(",", ":"))
        _, content = await ask_admin_bytes(path, "GET", "/metrics")
        assert b"\numbel_in_flight 7.0\n" in content
        assert b'\numbel_worker_stale{worker="main"} 0.0\n' in content
        assert await ask_admin(path, "GET", "/readyz") == (
            200,
            {"status": "ready", "state": "serving", "blocked_s": 0.0},
        )
        assert await ask_admin(path, "POST", "/ctl/reopen") == (200, {})
        assert view.reopened == 1
        assert await ask_admin(path, "POST", "/ctl/log-level", {"level": "debug"}) == (200, {"level": "debug"})
        assert view.level == "debug"
        status, answer = await ask_admin(path, "POST", "/ctl/log-level")
        assert (status, answer["detail"]) == (409, LEVEL_NEEDED)
        status, answer = await ask_admin(path, "POST", "/ctl/log-level", {"level": "loud"})
        assert (status, answer["detail"].startswith("the arguments are invalid: ")) == (409, True)
        for command in ("scale", "reload", "drain", "kill"):
            status, answer = await ask_admin(path, "POST", f"/ctl/{command}", {"slot": 1})
            assert (status, answer["detail"]) == (409, f"{command} needs a master: umbel serve -w N")
        status, answer = await ask_admin(path, "POST", "/ctl/stop", {"slot": 1})
        assert (status, answer["detail"].startswith("the arguments are invalid: ")) == (409, True)
        status, answer = await ask_admin(path, "POST", "/ctl/stop")
        assert (status, answer["detail"]) == (409, "this process does not handle SIGTERM; stop it by its own means")
    assert living() == []
    assert not path.exists()


async def test_a_blocked_event_loop_is_reported_with_its_place_and_the_latest_figures(tmp_path: Path) -> None:
    asker, path = Asker(tmp_path / "admin.sock"), tmp_path / "admin.sock"
    async with process_admin(View(), settings(tmp_path), Reports()):
        await ask_admin_bytes(path, "GET", "/metrics")
        with asker.asking("/status", "/tree", "/metrics", "/status?again", "/readyz"):
            block(BEAT_S + 3 * ANSWER_S)
        assert (await ask_admin(path, "GET", "/status"))[1]["process"]["blocked"] is None
        assert (await ask_admin(path, "GET", "/readyz"))[0] == 200
    assert '"state":"blocked"' in asker.answers["/status"][1]
    assert re.search(
        r"the event loop has been blocked for 0\.\d s, at \S+test_process_side.py:\d+ in block",
        asker.answers["/status"][1],
    )
    assert any("test_process_side.py" in line for line in asker.answers["/tree"][1].split(","))
    assert "\numbel_in_flight 7.0\n" in asker.answers["/metrics"][1]
    assert '\numbel_worker_stale{worker="main"} 1.0\n' in asker.answers["/metrics"][1]
    assert asker.answers["/readyz"][0] == 503
    assert '"blocked_s":0.0' not in asker.answers["/readyz"][1]


async def test_lints_are_shown_also_while_the_event_loop_is_blocked(tmp_path: Path) -> None:
    asker, view, path = Asker(tmp_path / "admin.sock"), View(), tmp_path / "admin.sock"
    async with process_admin(view, settings(tmp_path), Reports()):
        # Nobody has asked before, so nothing watches the steps: the place is that of this moment.
        with asker.asking("/lints"):
            block(2 * ANSWER_S)
        [lint] = json.loads(asker.answers["/lints"][1])["lints"]
        assert (lint["process"], lint["name"], lint["ongoing"]) == ("main", "long-step", True)
        assert re.search(r"test_process_side.py:\d+ in block$", lint["where"])
        assert (await ask_admin(path, "GET", "/lints"))[1] == {"lints": []}
        # From now on they are watched.
        with asker.asking("/lints?again"):
            block(2 * ANSWER_S)
        [lint] = json.loads(asker.answers["/lints?again"][1])["lints"]
        assert lint["where"] == f"process/test_process_side.py:{BLOCKING_LINE} in block"
        await trio.sleep(0.02)
        view.lost = 3
        await trio.sleep(1.1)  # Looks are a second apart.
        lints = (await ask_admin(path, "GET", "/lints"))[1]["lints"]
    assert [(each["name"], each["where"], each["ongoing"]) for each in lints] == [
        ("full-queue", "the log access", False),
        ("long-step", lint["where"], False),
    ]
    assert lints[0]["detail"] == "3 were lost since the look before, and 2 wait"


async def test_kept_requests_are_shown_also_while_the_event_loop_is_blocked(tmp_path: Path) -> None:
    asker, view, counts = Asker(tmp_path / "admin.sock"), View(), CountingRecorder(Records())
    async with process_admin(view, settings(tmp_path), Reports()):
        with asker.asking("/slow"):
            block(BEAT_S)
        assert json.loads(asker.answers["/slow"][1])["requests"] == []
        view.kept = counts.kept
        counts.record(partial_answer())
        [request] = counts.kept.listing().requests
        with asker.asking("/slow", f"/slow/{request.id}", "/slow/1-1"):
            block(BEAT_S + ANSWER_S)
    [shown] = json.loads(asker.answers["/slow"][1])["requests"]
    assert (shown["id"], shown["process"], shown["bucket"]) == (request.id, "main", "partial")
    answer = json.loads(asker.answers[f"/slow/{request.id}"][1])
    assert (answer["id"], answer["process"], answer["timeline"]["outcome"]) == (request.id, "main", "partial")
    assert asker.answers["/slow/1-1"][0] == 404


async def test_the_highest_lateness_is_seen_after_later_beats() -> None:
    async with trio.open_nursery() as nursery:
        loop = ObservedLoop(nursery)
        for lateness in (0.6, 0.0):
            loop._sent_at = time.monotonic() - lateness
            loop._take_beat()
        assert 0.6 <= loop.lag() < 1
        loop._sent_at = time.monotonic() - 5
        assert loop.lag() >= 5  # The present blockage counts too.


async def test_a_view_that_raises_ends_neither_the_loop_nor_the_thread(tmp_path: Path) -> None:
    class Broken(View):
        def state(self) -> str:
            raise ValueError("no state")

        async def reopen(self) -> None:
            raise OSError("no disk")

    reports = Reports()
    async with process_admin(Broken(), settings(tmp_path), reports):
        for _ in range(3):
            assert (await ask_admin(tmp_path / "admin.sock", "GET", "/status"))[0] == 500
            assert (await ask_admin(tmp_path / "admin.sock", "POST", "/ctl/reopen"))[0] == 500
        assert (await ask_admin(tmp_path / "admin.sock", "GET", "/livez"))[0] == 200
    assert [report.partition(" can")[0] for report in reports] == [
        "admin.failed: the admin side",
        "admin.failed: the admin side",
    ]


async def test_a_thread_that_fails_is_reported_and_the_block_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*arguments: Any, **keys: Any) -> None:
        raise RuntimeError("no epoll")

    monkeypatch.setattr("umbel.admin.side.AdminSide.run", failing)
    monkeypatch.setattr(module, "RESTART_S", 0.001)
    reports = Reports()
    async with process_admin(View(), settings(tmp_path), reports):
        await trio.sleep(0.02)
    assert len(reports) == 1
    assert "the thread of the admin side has failed: RuntimeError" in reports[0]
    assert living() == []


async def test_an_application_within_another_one_is_shown_by_the_one_admin_side(tmp_path: Path) -> None:
    async def state() -> str:
        return str((await ask_admin(tmp_path / "admin.sock", "GET", "/status"))[1]["process"]["state"])

    async with process_admin(View("outer"), settings(tmp_path), Reports()):
        assert await state() == "outer"
        async with process_admin(View("inner"), settings(tmp_path / "nowhere"), Reports()):
            assert living() == ["umbel-admin"]
            assert await state() == "inner"
        assert await state() == "outer"


async def test_an_exception_of_the_block_ends_the_thread(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup):
        async with process_admin(View(), settings(tmp_path), Reports()):
            raise ValueError("a defect of the application")
    assert living() == []
    assert not (tmp_path / "admin.sock").exists()


async def test_a_strict_start_with_a_taken_address_fails_and_starts_no_thread(tmp_path: Path) -> None:
    with Taken() as address:
        chosen = settings(tmp_path, metrics=address)
        with pytest.raises(ConfigError, match=r"admin\.metrics: cannot listen on"):
            async with process_admin(View(), chosen, Reports(), AdminOptions(strict=True)):
                pytest.fail("it must not start")
        assert living() == []
        reports = Reports()
        async with process_admin(View(), chosen, reports):
            assert (await ask_admin(tmp_path / "admin.sock", "GET", "/livez"))[0] == 200
        assert "cannot listen on" in reports[0]


class Taken:
    """An address on loopback that is taken while the block runs."""

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0))
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.mark.parametrize("strict", [True, False])
async def test_a_socket_that_is_not_served_is_said_on_stderr_if_strict(
    strict: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "admin.sock").mkdir()
    reports = Reports()
    async with process_admin(View(), settings(tmp_path), reports, AdminOptions(strict=strict)):
        pass
    [report] = reports
    assert f"the socket in {tmp_path} is not served: " in report
    assert capfd.readouterr().err == (f"{report}\n" if strict else "")


async def test_the_url_goes_to_the_terminal_and_into_no_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = Reports()
    async with process_admin(View(), settings(tmp_path), reports, AdminOptions(terminal=True)):
        said = capsys.readouterr().err
    assert said.startswith("The console (this URL opens it once): http://127.0.0.1:9")
    assert "/?token=" in said
    assert reports == []
