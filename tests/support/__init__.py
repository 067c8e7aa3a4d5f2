"""Helpers of the tests. Their assertions explain themselves as those of the tests do."""

import pytest

pytest.register_assert_rewrite("tests.support.failing", "tests.support.program")
