"""Every function that reads what comes from outside takes time linear in it, and not long for 64 KiB."""

from __future__ import annotations

import pytest

from tests.support.coverage_marks import not_under_coverage
from tests.support.source.adversarial import check_linear
from tests.support.source.input_readers import CASES


@not_under_coverage
@pytest.mark.parametrize("name", CASES)
def test_what_comes_from_outside_is_read_in_linear_time(name: str) -> None:
    case = CASES[name]
    check_linear(case.function, case.shapes, binary=case.binary)
