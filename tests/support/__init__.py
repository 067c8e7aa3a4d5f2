"""Helpers of the tests."""

import pytest

pytest.register_assert_rewrite("tests.support.gateway.failing_call", "tests.support.gateway.program")
