"""The start of a worker, in this process: its exit status and its report to the master."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypercorn.utils import LifespanFailureError

from umbel.core.errors import ConfigError, ConfigProblem
from umbel.supervisor.control import messages
from umbel.supervisor.worker.worker import _load_and_run
from umbel.supervisor.worker.worker_server import WorkerServer


def test_an_invalid_configuration_at_the_start_exits_with_78_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Required log files that could not be opened gave 3 and a traceback."""
    app = "hypercorn.trio.run:worker_serve"  # Anything that can be imported.
    start = messages.Start(slot=1, generation=1, app=app, config=None, heartbeat_every=1.0, orphan_grace=1.0)

    async def run(server: WorkerServer, sock: socket.socket) -> None:
        sock.close()
        raise ExceptionGroup("", [ConfigError([ConfigProblem("umbel.toml", 3, "logs.dir", "cannot be written")])])

    monkeypatch.setattr(WorkerServer, "run", run)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _load_and_run(start, theirs) == 78
        sent = messages.decode_worker_message(ours.recv(messages.LINE_BYTES_MAX))
    assert sent == messages.Failed(reason="umbel.toml:3: logs.dir: cannot be written", traceback="")


def test_a_start_without_the_keys_that_it_needs_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "class App:\n    keys_error = 'the keys have not come'\n    def __call__(self): ...\napp = App()\n"
    (tmp_path / "lacks_keys.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    start = messages.Start(slot=1, generation=1, app="lacks_keys", config=None, heartbeat_every=1.0, orphan_grace=1.0)

    async def run(server: WorkerServer, sock: socket.socket) -> None:
        sock.close()
        raise LifespanFailureError("startup", "the keys have not come")

    monkeypatch.setattr(WorkerServer, "run", run)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _load_and_run(start, theirs) == 3
        sent = messages.decode_worker_message(ours.recv(messages.LINE_BYTES_MAX))
    assert sent == messages.Failed(reason="the keys have not come", lacks_keys=True)


@pytest.mark.parametrize(
    ("module", "code", "status", "traceback"),
    [
        ("exits_with_78", "raise SystemExit(78)", 78, True),
        (
            "exits_with_78_for_its_configuration",
            "from umbel.core.errors import ConfigError\nraise SystemExit(78) from ConfigError([])",
            78,
            False,
        ),
        ("exits_with_5", "raise SystemExit(5)", 4, True),
        ("exits_with_a_sentence", "raise SystemExit('no database')", 4, True),
    ],
)
def test_an_exit_at_import_gives_78_if_its_status_is_78_and_otherwise_4(
    module: str, code: str, status: int, traceback: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    start = messages.Start(slot=1, generation=1, app=module, config=None, heartbeat_every=1.0, orphan_grace=1.0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert _load_and_run(start, theirs) == status
        sent = messages.decode_worker_message(ours.recv(messages.LINE_BYTES_MAX))
    assert isinstance(sent, messages.Failed)
    assert ("Traceback" in sent.traceback) == traceback
