"""The branch coverage of the test suite: ``make cover``; further arguments go to pytest.

The suite runs under coverage on two cores. Processes that tests start are included, such as workers; a process that is
killed by SIGKILL leaves no data. The report is printed even if tests fail. The data and the total counts are written to
``.cover``. The exit status is that of pytest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

PROJECT = Path(__file__).parents[1]
DATA = PROJECT / ".cover"
TOTALS = DATA / "totals.json"
TEST_S_MAX = 300
"""Bound of one test, which takes longer under coverage."""


def run_suite(options: Sequence[str]) -> int:
    """Run the suite under coverage, combine the data of its processes and keep the totals; gives pytest's exit status.

    What pytest prints goes to stderr. Raises SystemExit if coverage is not installed.
    """
    if find_spec("coverage") is None:
        sys.exit("umbel: there is no coverage here; install it with: pip install -c constraints.txt -e '.[dev]'")
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir()
    suite = ["-m", "pytest", "--numprocesses", "2", "--dist", "worksteal", "--timeout", str(TEST_S_MAX), *options]
    status = _coverage("run", "--parallel-mode", *suite, check=False, stdout=sys.stderr)
    _coverage("combine", "--quiet")
    path = DATA / "report.json"
    _coverage("json", "--quiet", "-o", str(path))
    found = json.loads(path.read_text(encoding="utf-8"))["totals"]
    TOTALS.write_text(json.dumps({"pytest": list(options), **found}), encoding="utf-8")
    return status


def report() -> None:
    """Print the coverage of every file that is not wholly covered, and the total."""
    _coverage("report")
    print("Processes that tests start are counted, except those that are killed by SIGKILL.")


def totals() -> dict[str, Any]:
    """Return the counts of the last run, named as by ``coverage json``, and its options for pytest as ``pytest``.

    Raises SystemExit, with the command that is missing, if there was no run.
    """
    try:
        found: dict[str, Any] = json.loads(TOTALS.read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit("umbel: there is no coverage to read; measure it first with: make cover")
    return found


def _coverage(*arguments: str, check: bool = True, stdout: TextIO | None = None) -> int:
    """Run a command of coverage on our data; raises CalledProcessError if it fails and ``check`` is set."""
    command = [sys.executable, "-m", "coverage", *arguments]
    environ = {**os.environ, "COVERAGE_FILE": str(DATA / "data")}
    return subprocess.run(command, cwd=PROJECT, env=environ, check=check, stdout=stdout).returncode


def main() -> None:
    status = run_suite(sys.argv[1:])
    report()
    sys.exit(status)


if __name__ == "__main__":
    main()
