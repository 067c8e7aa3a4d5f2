"""The runs of the labs, each of which is made once for all tests of a process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from umbel.labs.model import Run, lab_of
from umbel.labs.run import run_lab

_runs: dict[int, dict[str, Run]] = {}

Ran = Callable[[int], Awaitable[dict[str, Run]]]


@pytest.fixture
def ran() -> Ran:
    """Runs a lab, in processes of its own, and returns the runs by column."""

    async def run(number: int) -> dict[str, Run]:
        if number not in _runs:
            _runs[number] = await run_lab(lab_of(number))
        return _runs[number]

    return run
