"""The documentation site, built once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tools.external import ENVIRONMENTS

from tests.support.process.processes import PROJECT

BUILD_S_MAX = 100


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site. A warning of the builder is a failure."""
    folder = tmp_path_factory.mktemp("site")
    mkdocs = str(ENVIRONMENTS / "docs" / "bin" / "mkdocs")
    command = [mkdocs, "build", "--strict", "--config-file", str(PROJECT / "mkdocs.yml"), "--site-dir", str(folder)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BUILD_S_MAX, check=False)
    assert done.returncode == 0, done.stderr
    return folder
