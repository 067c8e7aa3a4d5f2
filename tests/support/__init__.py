"""Test helpers. Modules with assertions are registered for pytest's rewriting, so that a failure shows the values."""

import pytest

pytest.register_assert_rewrite("tests.support.gateway.failing_call", "tests.support.gateway.program")
