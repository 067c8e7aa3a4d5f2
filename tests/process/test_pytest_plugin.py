"""The pytest plug-in of ``umbel.testing``, with pytest-trio and without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import umbel
from tests.support.testing.pages import one_call
from tests.support.testing.plug_in import PLUG_IN

TESTS = """
import pytest
import trio
from umbel.testing import delay, json


async def test_in_five_lines(umbel_gateway):
    async with umbel_gateway("umbel.toml", {"u": json({"name": "Ada"})}) as client:
        assert (await client.get("/")).json() == {"it": {"name": "Ada"}}


async def test_takes_virtual_time(umbel_gateway):
    await trio.sleep(3600)


async def test_fails(umbel_gateway):
    assert False, "as it should"


async def test_skips(umbel_gateway):
    pytest.skip("as it should")


class TestMethods:
    @pytest.mark.parametrize("answer", [1, 2])
    async def test_method(self, answer, umbel_gateway, tmp_path):
        async with umbel_gateway("umbel.toml", {"u": delay(5).then(json(answer))}) as client:
            assert (await client.get("/")).json() == {"it": answer}


def test_sync(umbel_gateway):
    assert callable(umbel_gateway)


def test_without_the_fixture():
    pass
"""
WITH_TRIO = """

@pytest.fixture
async def user(nursery):
    yield "Ada"


async def test_with_fixtures_of_pytest_trio(umbel_gateway, user, nursery, autojump_clock):
    async with umbel_gateway("umbel.toml", {"u": json(user)}) as client:
        assert (await client.get("/")).json() == {"it": "Ada"}


async def test_a_clock_of_the_test(umbel_gateway, mock_clock):
    assert trio.lowlevel.current_clock() is mock_clock


@pytest.mark.trio
async def test_of_another_kind():
    with pytest.raises(Exception, match="virtual clock"):
        async with __import__("umbel").testing.gateway("umbel.toml"):
            pass
"""


@pytest.mark.parametrize("mode", ["without pytest-trio", "pytest-trio", "trio_mode"])
def test_async_tests_with_the_fixture_run_in_virtual_time(mode: str, tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text(one_call())
    (tmp_path / "test_it.py").write_text(TESTS + (WITH_TRIO if mode != "without pytest-trio" else ""))
    (tmp_path / "pytest.ini").write_text("[pytest]\n" + ("trio_mode = true\n" if mode == "trio_mode" else ""))
    options = ["-p", "no:trio"] if mode == "without pytest-trio" else []
    options += ["-p", "no:randomly", "-p", "no:xdist", *PLUG_IN]
    # In a process of its own, because a run of pytest within a test shares its plug-ins and modules.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(umbel.__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    passed = 6 if mode == "without pytest-trio" else 9
    assert re.search(rf"1 failed, {passed} passed, 1 skipped", done.stdout), done.stdout + done.stderr
    # Without the groups of pytest-trio, for which pytest shows no assertion.
    assert "\nE       AssertionError: as it should" in done.stdout
    assert "ExceptionGroup" not in done.stdout


def test_the_plug_in_loads_neither_trio_nor_a_web_framework() -> None:
    code = "import sys, umbel.testing.pytest_plugin; print([m for m in ('trio', 'httpx', 'quart') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
