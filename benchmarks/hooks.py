"""The cost of an application's hooks for a request of a configured route: ``make bench-hooks``, some seconds.

A route of one call, served by ``app.run()`` in a process of its own; one client sends one request after the other. Each
row is another application, or another value of ``[server] hooks``. The CPU time is that of the process, as the kernel
counts it; then cProfile counts the functions that a request enters, Python's and C's.
"""

from __future__ import annotations

import cProfile
import http.client
import os
import pstats
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WARM_UP, TIMED, COUNTED = 200, 3000, 200
ROWS = {
    "no hooks": ("auto", 0),
    "one `before_request` function": ("auto", 1),
    'the same, `hooks = "python"`': ("python", 1),
}
BEGIN, END = signal.SIGRTMIN, signal.SIGRTMIN + 1


def serve(directory: str, upstream: str, mode: str, hooks: int) -> None:
    """Serve in this process: print the address, and at the end the functions entered between two signals."""
    from umbel import Umbel
    from umbel.config.schema.sections import Config

    call = {"upstream": "u", "path": "/x"}
    config: dict[str, Any] = {
        "logs": {"dir": directory},
        "server": {"hooks": mode},
        "upstreams": {"u": {"urls": [f"http://127.0.0.1:{upstream}"]}},
        "routes": [{"path": "/r", "auth": "none", "calls": {"c": call}}],
    }
    app = Umbel(__name__, Config.model_validate(config), static_folder=None)

    async def hook() -> None:
        """Does nothing."""

    for _ in range(hooks):
        app.before_request(hook)
    profile = cProfile.Profile()

    def end(*_: object) -> None:
        profile.disable()
        print(pstats.Stats(profile).total_calls, flush=True)  # type: ignore[attr-defined]  # typeshed lacks it
        os._exit(0)

    signal.signal(BEGIN, lambda *_: profile.enable())
    signal.signal(END, end)
    app.run(port=0)


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python process without warnings until the block ends."""
    with subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(upstream: str, mode: str, hooks: int) -> tuple[float, float]:
    """Return the CPU microseconds and the entered functions of one request."""
    with (
        tempfile.TemporaryDirectory() as directory,
        started(__file__, "serve", directory, upstream, mode, str(hooks)) as gateway,
    ):
        port = int(said(gateway).partition(" (")[0].rpartition(":")[2])
        client = http.client.HTTPConnection("127.0.0.1", port)

        def ask(times: int) -> None:
            for _ in range(times):
                client.request("GET", "/r")
                answer = client.getresponse()
                body = answer.read()
                assert answer.status == 200, body

        ask(WARM_UP)
        before = cpu_s(gateway.pid)
        ask(TIMED)
        used = cpu_s(gateway.pid) - before
        gateway.send_signal(BEGIN)
        ask(COUNTED)
        gateway.send_signal(END)
        return used / TIMED * 1e6, int(said(gateway)) / COUNTED


def main() -> None:
    print("| the application has | functions entered | CPU, µs | times |")
    print("|---|---:|---:|---:|")
    least = 0.0
    with started(str(HERE / "path_upstream.py"), "0") as stub:
        upstream = said(stub).split()[0]
        for name, (mode, hooks) in ROWS.items():
            cpu, functions = measured(upstream, mode, hooks)
            least = least or cpu
            print(f"| {name} | {functions:.0f} | {cpu:.0f} | {cpu / least:.1f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(*sys.argv[2:5], hooks=int(sys.argv[5]))
    else:
        main()
