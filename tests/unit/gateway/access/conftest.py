"""The files of keys for applications with ``[auth]``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.auth.guarded import key_files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the keys of the issuer, and the file of the partner's key."""
    return key_files(tmp_path)
