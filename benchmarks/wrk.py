"""The load of ``gateways.py``: wrk if it is installed, otherwise ``burst_load.py``, which reports the same figures.

Both keep a number of connections busy, each of which sends its next request when its response has come.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PATIENCE_S = 30.0
"""How much longer than asked the load may take before it is given up."""
LATE_S = 10
"""wrk leaves slower answers out of its percentiles; every gateway here has a deadline far below."""


class Load(NamedTuple):
    """The result of one run of the load."""

    seconds: float
    answers: int
    """Answers of any status."""
    bad: int
    """Those of them that are not 2xx or 3xx."""
    failed: int
    """Connections refused or broken, and answers that came later than ``LATE_S``."""
    p50: float | None
    p99: float | None
    """Seconds; None where there was no answer."""

    @property
    def good(self) -> int:
        return self.answers - self.bad


def parsed(text: str) -> Load:
    """Parse the output of ``wrk --latency``; raises ValueError for other text."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h),", text)
    if total is None:
        raise ValueError(f"wrk printed no sum of its requests: {text.strip()[-500:]!r}")
    answers = int(total[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    quantiles = {
        share: float(value) * UNITS[unit]
        for share, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m|h)\s*$", text, re.MULTILINE)
    }
    return Load(
        float(total[2]) * UNITS[total[3]],
        answers,
        int(bad[1]) if bad else 0,
        sum(map(int, errors.groups())) if errors else 0,
        quantiles.get("50") if answers else None,
        quantiles.get("99") if answers else None,
    )


def load_name() -> str:
    """Return the name and version of the load generator."""
    if shutil.which("wrk") is None:
        return "an epoll loop in Python (burst_load.py; there is no wrk here)"
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[:2])


def load(
    prefix: list[str],
    port: int,
    path: str,
    connections: int,
    seconds: int,
    post: int = 0,
    paths: int = 0,
    fields: int = 2,
    scheme: str = "http",
) -> Load:
    """Run the load for ``seconds`` (wrk takes whole ones), with ``prefix`` before the command.

    Requests are GETs, or POSTs with a body of ``post`` bytes. With ``paths`` no two are equal: the k-th is a GET of
    ``PATH{k modulo paths}/{k}`` with ``fields`` header fields, one of which contains k. The scheme ``https`` needs wrk,
    which does not check certificates.
    """
    if shutil.which("wrk"):
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
        command += ["--latency", "--timeout", f"{LATE_S}s", f"{scheme}://127.0.0.1:{port}{path}"]
        if post:
            command += ["--script", str(HERE / "peers" / "post.lua"), "--", str(post)]
        elif paths:
            command += ["--script", str(HERE / "peers" / "numbered.lua"), "--", path, str(paths), str(fields)]
    else:
        command = [sys.executable, str(HERE / "burst_load.py"), str(port), path, str(connections), str(seconds)]
        command += [str(post), str(paths), str(fields)]
    try:
        done = subprocess.run(
            [*prefix, *command], capture_output=True, text=True, check=False, timeout=seconds + PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return Load(seconds, 0, 0, connections, None, None)
    if command[0] == "wrk":
        # Without a single connection it ends with an error and no sum.
        refused = "unable to connect" in done.stderr + done.stdout
        return Load(seconds, 0, 0, connections, None, None) if refused else parsed(done.stdout)
    return Load(*json.loads(done.stdout))
