"""A forked process sees what an executed one sees."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from tests.support.process.fork_server import BY_EXEC
from tests.support.process.processes import PYTHON, ended

SEEN = """
import gc, json, os, signal, sys
numbers = [number for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")]
streams = [
    (s.fileno(), s.encoding, s.errors, s.newlines, s.line_buffering, s.write_through, type(s.buffer).__name__)
    for s in (sys.stdin, sys.stdout, sys.stderr)
]
signals = {number: str(signal.getsignal(number)).split(" at ")[0] for number in signal.valid_signals()}
seen = {
    "descriptors": sorted(map(int, numbers)), "streams": streams, "signals": signals,
    "masked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "group": os.getpgid(0), "session": os.getsid(0),
    "environment": dict(os.environ), "directory": os.getcwd(), "path": sys.path, "arguments": sys.argv,
    "main": [sys.modules["__main__"].__spec__.name, sys.modules["__main__"].__file__],
    "collector": [gc.isenabled(), gc.get_threshold()],
}
print(json.dumps(seen))
print("on stderr", file=sys.stderr)
sys.exit(5)
"""


async def test_a_forked_process_sees_what_an_executed_one_sees(tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text(SEEN)

    async def seen(**env: str) -> dict[str, Any]:
        command = (PYTHON, "-m", "umbel", "serve", "seen:app", "--bind", "127.0.0.1:0")
        status, output = await ended(*command, cwd=tmp_path, env={"PYTHONUNBUFFERED": "1", "OF_TEST": "\udcff", **env})
        assert status == 5
        first, *rest = output.splitlines()
        assert "on stderr" in rest
        found: dict[str, Any] = json.loads(first)
        found["environment"].pop(BY_EXEC, None)
        return found

    assert await seen() == await seen(**{BY_EXEC: "1"})


async def test_the_mistakes_of_a_command_are_those_of_an_executed_one(tmp_path: Path) -> None:
    command = (PYTHON, "-m", "umbel", "ctl", "stats")
    assert await ended(*command, cwd=tmp_path) == await ended(*command, cwd=tmp_path, env={BY_EXEC: "1"})


async def test_a_starter_that_is_killed_before_its_answer_does_not_end_the_server(tmp_path: Path) -> None:
    command = (PYTHON, "-m", "umbel", "--version")
    await ended(*command, cwd=tmp_path)
    for request in (b"", b'{"ended": 1}'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(f"\0umbel-tests-{os.getpid()}")
            if request:
                asking.send(request)
    assert (await ended(*command, cwd=tmp_path))[0] == 0
