"""The tests with external programs: ``make external`` runs all of them, or those that ARGS names.

Each folder of ``tests/external`` has the tests with one program, whose packages are installed first: Debian's if this
runs as root, those of npm and PyPI into ``.ext/NAME``. A folder whose program is missing is skipped, and the last lines
say so. Each folder has a time limit. The exit status is 1 if a test failed or a limit was exceeded, otherwise 0.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[1]
TESTS = PROJECT / "tests" / "external"
ENVIRONMENTS = PROJECT / ".ext"
INSTALL_S_MAX = 600
NO_TEST_RAN = 5  # pytest's exit status if it collected no test.


@dataclass(frozen=True, slots=True)
class Tool:
    """What the tests of one folder need, and the time that they may take."""

    programs: Mapping[str, str]
    """Each program with the Debian package that has it."""
    seconds_max: int
    longer: Mapping[str, int] = field(default_factory=dict)
    """The time that they may take with an option that has more cases run."""


TOOLS: Mapping[str, Tool] = {
    "chromium": Tool({"chromium": "chromium"}, 300),
    "curl": Tool({"curl": "curl"}, 120),
    "docs": Tool({}, 90),
    "grafana": Tool({}, 60),
    "h2load": Tool({"h2load": "nghttp2-client"}, 180),
    "learn": Tool({}, 60),
    "logrotate": Tool({"logrotate": "logrotate"}, 120),
    "migration": Tool({}, 180),
    "nginx": Tool({"nginx": "nginx-light"}, 180),
    "node": Tool({"node": "nodejs", "npm": "npm"}, 180),
    "prometheus": Tool({"prometheus": "prometheus"}, 120),
    "slowhttptest": Tool({"slowhttptest": "slowhttptest"}, 300),
    "websocket": Tool({"node": "nodejs", "npm": "npm"}, 900, {"--every-case": 3700}),
    "wheel": Tool({"git": "git"}, 210),
}


def program(name: str) -> str | None:
    """Return the path of a program, if it is installed; daemons stand in ``/usr/sbin``."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def install(name: str) -> str | None:
    """Install what the tests of ``name`` need, unless it is there; return what is missing after that, or None."""
    missing = [package for each, package in TOOLS[name].programs.items() if program(each) is None]
    if missing and os.geteuid() == 0 and program("apt-get") is not None:
        print(f"{name}: installing {', '.join(missing)} ...", flush=True)
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        _quietly(["apt-get", "update"], environ)
        _quietly(["apt-get", "install", "--yes", "--no-install-recommends", *missing], environ)
        missing = [package for each, package in TOOLS[name].programs.items() if program(each) is None]
    if missing:
        return f"not installed; as root: apt-get install {' '.join(missing)}"
    place, folder = ENVIRONMENTS / name, TESTS / name
    npm = [program("npm") or "npm", "install", "--prefix", str(place), "--no-package-lock", "--no-audit", "--no-fund"]
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(folder / "requirements.txt")]
    return _install_into(place, folder / "package.json", [npm]) or _install_into(
        place, folder / "requirements.txt", [[sys.executable, "-m", "venv", str(place)], pip]
    )


def _install_into(place: Path, manifest: Path, commands: Iterable[Sequence[str]]) -> str | None:
    """Run the commands that install what a file of the folder names, unless this was done; return what went wrong."""
    if not manifest.exists():
        return None
    copy = place / manifest.name
    if copy.exists() and copy.read_bytes() == manifest.read_bytes():
        return None
    place.mkdir(parents=True, exist_ok=True)
    print(f"{place.name}: installing what {manifest.relative_to(PROJECT)} names ...", flush=True)
    shutil.copyfile(manifest, copy)
    for command in commands:
        if not _quietly(command):
            copy.unlink()
            return f"not installed; see it with: {shlex.join(command)}"
    return None


def _quietly(command: Sequence[str], environ: Mapping[str, str] | None = None) -> bool:
    """Run a command whose output is shown only if it fails; return whether it succeeded."""
    try:
        done = subprocess.run(
            command, env=environ, timeout=INSTALL_S_MAX, capture_output=True, text=True, errors="replace", check=False
        )
    except subprocess.TimeoutExpired:
        print(f"{command[0]} did not end within {INSTALL_S_MAX} s", file=sys.stderr)
        return False
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
    return done.returncode == 0


def run(name: str, options: Iterable[str]) -> str:
    """Run the tests of one folder; return its result in a few words, which begin with ``passed`` or ``FAILED``."""
    began = time.monotonic()
    options = list(options)
    seconds_max = max([TOOLS[name].seconds_max, *(TOOLS[name].longer.get(option, 0) for option in options)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", str(TESTS / name), *options]
    process = subprocess.Popen(command, cwd=PROJECT)
    try:
        status = process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        process.terminate()  # pytest ends the programs that it started.
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return f"FAILED   not done within {seconds_max} s"
    took = f"in {time.monotonic() - began:.0f} s"
    if status == NO_TEST_RAN:
        return "FAILED   no test ran"
    return f"passed   {took}" if status == 0 else f"FAILED   {took}, exit status {status}"


def main() -> int:
    """Install and run what is asked for, and print one line for each at the end."""
    parser = argparse.ArgumentParser(prog="python -m tools.external", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TOOLS)}; all without one")
    parser.add_argument("--install-only", action="store_true", help="install what is missing, and run nothing")
    given, options = parser.parse_known_args()
    if unknown := sorted(set(given.names) - set(TOOLS)):
        parser.error(f"there are no tests with {', '.join(unknown)}; there are: {', '.join(TOOLS)}")
    results = {}
    for name in given.names or TOOLS:
        missing = install(name)
        if missing is not None:
            results[name] = f"SKIPPED  {missing}"
        elif given.install_only:
            results[name] = "installed"
        else:
            print(f"\n{name}", flush=True)
            results[name] = run(name, options)
    print()
    for name, result in results.items():
        print(f"{name:14}{result}")
    return int(any(result.startswith("FAILED") for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
