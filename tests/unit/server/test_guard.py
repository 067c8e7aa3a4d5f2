"""The guard's switch: whoever makes an Umbel puts it on, and the environment takes it off."""

from __future__ import annotations

import subprocess
import sys

import pytest

from umbel.gateway.app import Umbel
from umbel.server import guard


def test_making_an_umbel_installs_the_guard() -> None:
    Umbel(__name__)
    assert guard.installed()


@pytest.mark.parametrize(("value", "installed"), [("off", "False"), ("on", "True")])
def test_the_environment_switches_it_off(value: str, installed: str) -> None:
    code = "from umbel.server import guard; guard.install(); print(guard.installed())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"UMBEL_GUARD": value}
    )
    assert done.stdout.strip() == installed
