"""The checks: one command of a public tool each, and what its output must say."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {"curl": "curl", "h2load": "nghttp2-client", "slowhttptest": "slowhttptest"}
"""The Debian package of each tool."""


@dataclass(frozen=True, slots=True)
class Target:
    """The servers that are asked: one in plain text, one with TLS, and the certificate that proves it."""

    plain: str
    secure: str
    ca: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Check:
    """A command, and what to make of its output: a few words if it is right, None if it is not."""

    name: str
    command: list[str]
    judge: Callable[[str], str | None]
    seconds_max: float = 60.0


def missing() -> dict[str, str]:
    """The tools that are not here, with their packages."""
    return {tool: package for tool, package in PACKAGES.items() if shutil.which(tool) is None}


def run(check: Check) -> tuple[str | None, str]:
    """The judgement (None: it failed), and the whole output."""
    try:
        done = subprocess.run(
            check.command, capture_output=True, text=True, timeout=check.seconds_max, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        return None, f"did not end within {check.seconds_max:g} s: {error.stdout!r}"
    output = done.stdout + done.stderr
    return check.judge(output), output


def checks(target: Target) -> Iterator[Check]:
    """All of them, tool by tool; those of a tool that is not here too."""
    yield from _curl(target)
    yield from _h2load(target)
    yield from _slowhttptest(target)


def _saying(wanted: str) -> Callable[[str], str | None]:
    return lambda output: wanted.strip().replace("\n", ", ") if output.startswith(wanted) else None


def _curl(target: Target) -> Iterator[Check]:
    body = target.scratch / "body.json"
    body.write_text('{"a": "' + "x" * 60_000 + '"}')
    flavours = {
        "HTTP/1.1": ["--http1.1", target.plain],
        "HTTP/1.0": ["--http1.0", target.plain],
        "HTTP/1.1 over TLS": ["--http1.1", "--cacert", str(target.ca), target.secure],
        "HTTP/2 with prior knowledge": ["--http2-prior-knowledge", target.plain],
        "HTTP/2 by ALPN": ["--http2", "--cacert", str(target.ca), target.secure],
        "HTTP/2 by Upgrade (ignored)": ["--http2", target.plain],
    }
    versions = {"HTTP/1.0": "1.1", "HTTP/2 with prior knowledge": "2", "HTTP/2 by ALPN": "2"}
    for flavour, (*options, base) in flavours.items():
        version = versions.get(flavour, "1.1")
        curl = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version} %{num_connects}\n", *options]
        send = ["-H", "Content-Type: application/json"]
        yield Check(f"curl, {flavour}: GET", [*curl, f"{base}/r"], _saying(f"200 {version}"))
        yield Check(f"curl, {flavour}: HEAD", [*curl, "-I", f"{base}/r"], _saying(f"200 {version}"))
        yield Check(
            f"curl, {flavour}: POST, Expect",
            [*curl, *send, "-H", "Expect: 100-continue", "--data-binary", f"@{body}", f"{base}/echo"],
            _saying(f"200 {version}"),
        )
        if flavour == "HTTP/1.0":
            continue
        yield Check(
            f"curl, {flavour}: POST of unknown length",
            [*curl, *send, "-X", "POST", "-H", "Transfer-Encoding: chunked", "-T", str(body), f"{base}/echo"],
            _saying(f"200 {version}"),
        )
        again = [*curl, f"{base}/r", "-o", "/dev/null", f"{base}/nowhere", "-o", "/dev/null", f"{base}/livez"]
        one_connection = f"200 {version} 1\n404 {version} 0\n200 {version} 0\n"
        if "prior" not in flavour or _curl_can_reuse():
            yield Check(f"curl, {flavour}: three on one connection", again, _saying(one_connection))


def _curl_can_reuse() -> bool:
    """Before 8.0 curl spoiled a connection of prior knowledge when it used it again (curl issue 10634)."""
    done = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"curl (\d+)", done.stdout)
    return version is not None and int(version[1]) >= 8


def _all_succeeded(output: str) -> str | None:
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    rate = re.search(r"finished in .*", output)
    if counts and rate and counts.groups()[1:] == ("0", "0", "0"):
        return f"{counts[1]} succeeded, 0 failed; {rate[0]}"
    return None


def _h2load(target: Target) -> Iterator[Check]:
    for name, options, base in (
        ("HTTP/2, 10 connections of 10 streams", ["-n", "2000", "-c", "10", "-m", "10"], target.plain),
        ("HTTP/2 over TLS, 10 connections of 10 streams", ["-n", "2000", "-c", "10", "-m", "10"], target.secure),
        # A connection ends with its thousandth request (keep_alive_max_requests), and h2load makes no other.
        ("HTTP/2, 1 connection of 100 streams", ["-n", "900", "-c", "1", "-m", "100"], target.plain),
        ("HTTP/1.1, 10 connections", ["-n", "2000", "--h1", "-c", "10"], target.plain),
    ):
        command = ["h2load", *options, f"{base}/livez"]
        yield Check(f"h2load, {name}", command, _all_succeeded)


def _served_throughout(ending: str) -> Callable[[str], str | None]:
    def judge(output: str) -> str | None:
        plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output)
        available = re.findall(r"service available:\s*(YES|NO)", plain)
        ended = re.search(r"Test ended on (\d+)\w* second\s+Exit status: (.*)", plain)
        if ended is None or set(available) != {"YES"} or ending not in ended[2]:
            return None
        return f"service available throughout; ended in second {ended[1]}: {ended[2].lower()}"

    return judge


def _slowhttptest(target: Target) -> Iterator[Check]:
    common = ["slowhttptest", "-c", "300", "-r", "100", "-l", "15", "-p", "2", "-i", "1"]
    all_cut, whatever = "No open connections left", ""
    for name, options, path, ending in (
        ("slow heads", ["-H"], "/livez", all_cut),
        ("slow bodies", ["-B", "-s", "8192", "-f", "application/json"], "/echo", all_cut),
        ("slow reads", ["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "3"], "/livez", whatever),
        ("many ranges", ["-R"], "/livez", whatever),
    ):
        command = [*common, *options, "-u", f"{target.plain}{path}"]
        yield Check(f"slowhttptest, {name}", command, _served_throughout(ending))
