"""The logs as a whole: a disk that hangs, secrets in every input, and the program in docs/logs.md."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import request

from tests.support.process.processes import PROJECT, PYTHON, ended
from tests.support.server.asgi import ask, living
from umbel.config.schema.sections import Config
from umbel.gateway.app import Umbel
from umbel.logs import LogOptions, open_log, open_recorder
from umbel.logs.files.file import LogFile

OPTIONS = LogOptions(flush_every=0.001, service="test")


class HangingDisk:
    """A disk that hangs: a write into the file at ``path`` blocks its thread until ``release``."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._released = threading.Event()
        write = LogFile._write

        def hang(file: LogFile, lines: bytes) -> None:
            if file.path == path:
                self._released.wait(60)
            write(file, lines)

        monkeypatch.setattr(LogFile, "_write", hang)

    def release(self) -> None:
        self._released.set()


async def test_a_log_whose_disk_hangs_delays_neither_the_event_loop_nor_another_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = HangingDisk(tmp_path / "hangs", monkeypatch)
    async with (
        open_log(tmp_path / "hangs", OPTIONS) as hanging,
        open_log(tmp_path / "works", OPTIONS) as working,
    ):
        with trio.fail_after(30):
            while hanging.statistics().busy_for == 0 or hanging.statistics().queued_bytes < 2**20:
                for number in range(100):
                    hanging.info("test.line", number=number, filling="x" * 200)
                await trio.lowlevel.checkpoint()
            for number in range(10):
                working.info("test.line", number=number)
                await working.flush()
            assert working.statistics().written == 10
            assert hanging.statistics().last_error is None

            disk.release()
            hanging.info("test.last")
            await hanging.flush()
        assert hanging.statistics().dropped == 0

    lines = [json.loads(line) for line in (tmp_path / "hangs").read_bytes().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))


async def test_a_log_whose_disk_hangs_does_not_delay_the_end_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.logs.writer.DRAIN_S_MAX", 0.05)
    disk = HangingDisk(tmp_path / "hangs", monkeypatch)
    with trio.fail_after(20):
        async with open_log(tmp_path / "hangs", OPTIONS) as log:
            for _ in range(1000):
                log.info("test.line", filling="x" * 200)
    assert log.statistics().dropped > 0
    disk.release()  # So that the abandoned thread ends.


PLACES = "header cookie query userinfo body exception group extra argument field bearer key"
SECRETS = {place: f"s3cr3t-of-{place}" for place in PLACES.split()}


async def test_no_secret_of_any_input_is_in_a_log_file(tmp_path: Path) -> None:
    config = {
        "upstreams": {"users": {"urls": ["http://127.0.0.1:1"]}},
        "logs": {"dir": str(tmp_path), "app": {"level": "debug"}, "redact": ["x-field"]},
        "routes": [{"path": "/r", "calls": {"part": {"upstream": "users", "path": "/"}}}],
    }
    app = Umbel("test_logs", Config.model_validate(config))
    library = logging.getLogger("some.library")

    @app.post("/leaky")
    async def leaky() -> str:
        library.warning("headers: %r", list(request.headers.items()))
        library.warning("cookies", extra={"cookie": request.headers["Cookie"], "all": dict(request.headers)})
        library.warning("body: %s", await request.get_data(as_text=True))
        library.warning("calling %s", request.url, extra={"password": SECRETS["extra"], "x_field": SECRETS["field"]})
        library.warning("as told: token=%s", SECRETS["argument"])
        library.warning("to postgres://me:%s@db.example/x", SECRETS["userinfo"])
        try:
            raise ValueError(f"login failed for password={SECRETS['exception']}")
        except ValueError:
            library.exception("it failed")
        raise ExceptionGroup("many", [KeyError(f"Authorization: Bearer {SECRETS['group']}")])

    async with living(app):
        headers = [
            ("authorization", f"Basic {SECRETS['header']}"),
            ("cookie", f"session={SECRETS['cookie']}"),
            ("x-api-key", SECRETS["key"]),
            ("x-forwarded-authorization", f"Bearer {SECRETS['bearer']}"),
        ]
        body = json.dumps({"user": "a", "client_secret": SECRETS["body"]}).encode()
        for target in (f"/leaky?access_token={SECRETS['query']}", f"/r?api_key={SECRETS['query']}"):
            method = "POST" if "leaky" in target else "GET"
            await ask(app, method, target, body=body, headers=headers)

    text = "".join([await file.read_text() for file in await trio.Path(tmp_path).iterdir()])
    assert text.count("[redacted]") >= 10
    assert "it failed" in text
    assert {name for name, secret in SECRETS.items() if secret in text} == set()


async def test_a_recorder_works_in_a_program_without_the_gateway(tmp_path: Path) -> None:
    from umbel.config.schema.sections import Logs

    async with open_recorder(Logs.model_validate({"dir": str(tmp_path)})) as recorder:
        recorder.app.info("mine")
        recorder.rotate()
        await recorder.flush()
        recorder.app.info("after the rotation")
        recorder.reopen()
        await recorder.flush()

    events = [json.loads(line)["event"] for line in (await trio.Path(tmp_path / "app.jsonl").read_text()).splitlines()]
    assert events == ["after the rotation", "log.closed"]


async def test_the_program_in_docs_logs_writes_the_record_shown_there(tmp_path: Path) -> None:
    text = await trio.Path(PROJECT / "docs" / "logs.md").read_text()
    program = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    shown: dict[str, Any] = json.loads(re.findall(r"```json\n(.*?)```", text, re.DOTALL)[0])
    await trio.Path(tmp_path / "app.py").write_text(program)

    status, output = await ended(PYTHON, "app.py", cwd=tmp_path)

    assert (status, output) == (0, "")
    lines = [json.loads(line) for line in (await trio.Path(tmp_path / "app.jsonl").read_text()).splitlines()]
    assert [line["event"] for line in lines] == ["app.started", "stock.low", "order.paid", "log.closed"]
    assert lines[0].keys() == shown.keys()
    varying = {"ts", "host.name", "process.pid"}
    assert {key: value for key, value in lines[0].items() if key not in varying} == {
        key: value for key, value in shown.items() if key not in varying
    }
    assert lines[1]["request_id"] == "7f3a"
