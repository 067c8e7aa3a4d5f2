"""The option of these tests: ``make external ARGS='websocket --every-case'``."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-case", action="store_true", help="also the cases that compress 1,000 long messages each: 45 minutes"
    )
