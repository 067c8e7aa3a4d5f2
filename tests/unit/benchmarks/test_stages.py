"""The table of stages covers all files on the path of a request."""

from __future__ import annotations

import contextlib
import inspect
import os
from pathlib import Path

import pytest
import trio
from benchmarks.stages import ORDER, named_files, of_file, stage_of

import umbel
from umbel.composition import decode
from umbel.gateway.response import answer as respond

SRC = Path(umbel.__file__).parent
PACKAGES = ("server", "gateway", "composition", "core", "upstream", "net", "policy", "logs")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_on_the_path_has_a_row(package: str) -> None:
    files = [str(file.relative_to(SRC / package)) for file in (SRC / package).rglob("*.py")]
    assert files
    assert {of_file(package, file) for file in files} <= set(ORDER)


def test_every_file_with_a_stage_of_its_own_exists() -> None:
    assert [name for name in sorted(named_files()) if not (SRC / name).exists()] == []


def _stages_in(file: Path) -> set[str | None]:
    lines = len(file.read_text(encoding="utf-8").splitlines())
    return {stage_of(str(file), "some.function", line) for line in range(1, lines + 1)}


def test_system_calls_are_distinguished_from_the_code_around_them() -> None:
    found = set().union(*(_stages_in(file) for file in (SRC / "net").glob("*.py")))
    assert {"sockets: send (system call)", "sockets: recv (system call)", "sockets: TLS (OpenSSL)"} <= found


def test_json_is_distinguished_from_the_code_around_it() -> None:
    assert _stages_in(Path(decode.__file__)) == {"JSON: decode"}
    assert _stages_in(Path(respond.__file__)) == {"JSON: encode", "gateway: answer"}


def test_trios_waiting_is_distinguished_from_its_scheduling() -> None:
    package = Path(trio.__file__).parent
    run, epoll = str(package / "_core" / "_run.py"), package / "_core" / "_io_epoll.py"
    assert _stages_in(epoll) == {"epoll: own and trio's (system call)", "trio: epoll, Python side"}
    assert stage_of(run, "unrolled_run", 1) == "trio: scheduler"
    assert stage_of(run, "Runner.reschedule", 1) == "trio: scheduler"
    assert stage_of(run, "Runner.spawn_impl", 1) == "trio: nurseries, tasks, scopes"
    for function in (trio.Nursery.start_soon, trio.CancelScope.__enter__):
        assert stage_of(run, inspect.unwrap(function).__qualname__, 1) == "trio: nurseries, tasks, scopes"


@pytest.mark.parametrize("file", [contextlib.__file__, os.__file__, "<string>", str(SRC / "model.py")])
def test_a_frame_that_serves_many_stages_belongs_to_its_caller(file: str) -> None:
    assert stage_of(file, "function", 1) is None
