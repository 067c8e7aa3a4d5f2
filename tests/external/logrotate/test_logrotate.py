"""logrotate on a log that is being written: no record is lost, with a postrotate signal and without."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tools.external import program

from tests.process.test_logs import ROOT, assert_whole, by_process, last_number, writer
from tests.support.process.processes import ended, started
from umbel.logs.files.reading import log_files


@pytest.mark.parametrize("with_signal", [True, False], ids=["postrotate signal", "no signal"])
async def test_rotation_loses_no_record(tmp_path: Path, with_signal: bool) -> None:
    path = tmp_path / "app.jsonl"
    async with started(*writer(path, "--pause", "0.002", "--flush-every", "0.01"), cwd=ROOT) as child:
        await last_number(child, 100)
        script = f"postrotate\nkill -USR1 {child.pid}\nendscript" if with_signal else ""
        config = tmp_path / "logrotate.conf"
        config.write_text(f"{path} {{\nrotate 20\ncompress\nmissingok\nnocreate\nsu root root\n{script}\n}}\n")
        config.chmod(0o600)
        command = [program("logrotate") or "logrotate", "--force", "--state", str(tmp_path / "state"), str(config)]
        for _ in range(5):
            status, said = await ended(*command, cwd=tmp_path)
            assert status == 0, said
            while not path.exists():
                await last_number(child, 1)
        await child.stop(signal.SIGTERM)

    [mine] = by_process(path).values()
    seen = {record["seq"]: record for record in mine}
    assert_whole([seen[number] for number in sorted(seen)])
    assert sum(file.suffix == ".gz" for file in log_files(path)) == 5
