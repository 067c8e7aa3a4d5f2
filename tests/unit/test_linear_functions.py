"""Every function that parses input from outside takes linear time, and at most ``STALL_SECONDS`` for 64 KiB."""

from __future__ import annotations

import pytest

from tests.support.coverage_marks import not_under_coverage
from tests.support.source.adversarial import check_linear
from tests.support.source.input_readers import CASES


@not_under_coverage
@pytest.mark.parametrize("name", CASES)
def test_input_from_outside_is_parsed_in_linear_time(name: str) -> None:
    case = CASES[name]
    check_linear(case.function, case.texts, binary=case.binary)
