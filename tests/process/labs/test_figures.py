"""Each lab: what it measures is what it says, in every column."""

from __future__ import annotations

import pytest

from tests.process.labs.conftest import Ran
from umbel.labs.model import PACKAGES, lab_of


@pytest.mark.parametrize("number", PACKAGES)
async def test_each_column_measures_what_the_lab_says(number: int, ran: Ran) -> None:
    lab = lab_of(number)
    runs = await ran(number)
    assert {key: lab.measure(run) for key, run in runs.items()} == lab.expected
