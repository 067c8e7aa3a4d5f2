"""``umbel check``, ``explain`` and ``schema`` as processes: exit statuses, streams, Ctrl-C, and imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.gateway.configs import GOOD, write

UMBEL = [sys.executable, "-m", "umbel"]


def test_check_exits_with_0_or_78_and_reports_mistakes_on_stderr(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    good = subprocess.run([*UMBEL, "check"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (good.returncode, good.stdout, good.stderr) == (0, "umbel.toml: ok, 1 upstream, 1 route, 1 call\n", "")
    write(tmp_path, GOOD + "timout = 1\n")
    bad = subprocess.run([*UMBEL, "check"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (bad.returncode, bad.stdout) == (78, "")
    assert bad.stderr == "umbel.toml:6: routes[0].timout: is not a key of [[routes]]\n"


COMMANDS = [["check"], ["schema"], ["schema", "--markdown"], ["explain", "GET", "/nowhere"], ["--help"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_inspecting_imports_no_server(command: list[str], tmp_path: Path) -> None:
    assert imported_by(command, tmp_path).isdisjoint({"quart", "quart_trio", "hypercorn", "tree_sitter"})


def test_ctl_imports_neither_the_schema_nor_an_event_loop(tmp_path: Path) -> None:
    """Their imports would take ten times as long as everything else that it does."""
    assert imported_by(["ctl", "status"], tmp_path).isdisjoint({"pydantic", "msgspec", "trio", "httpx", "werkzeug"})


def imported_by(command: list[str], directory: Path) -> set[str]:
    """The names of the packages that a command imports, also if it fails."""
    write(directory, GOOD)
    code = (
        "import json, sys\n"
        "from contextlib import suppress\n"
        "from click import ClickException\n"
        "from umbel.cli import main\n"
        "with suppress(ClickException):\n"
        "    main(sys.argv[1:], standalone_mode=False)\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=directory, capture_output=True, text=True, timeout=30, check=False
    )
    return set(json.loads(ran.stdout.strip().rpartition("\n")[2]))


def test_ctrl_c_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    hangs = "import time\nfrom pathlib import Path\nPath('importing').touch()\ntime.sleep(600)\n"
    (tmp_path / "hangs.py").write_text(hangs)
    command = [*UMBEL, "check", "--app", "hangs:app"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "importing").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_a_reader_of_stdout_that_leaves_causes_no_traceback() -> None:
    with subprocess.Popen([*UMBEL, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.wait(timeout=30)


def test_a_terminal_without_box_characters_gets_the_tree_too(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([*UMBEL, "explain", "GET", "/r"], cwd=tmp_path, capture_output=True, timeout=30, env=environ)
    assert ran.returncode == 0
    assert b"c: GET u /" in ran.stdout
