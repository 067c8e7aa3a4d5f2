"""The mark for tests that measure time or count functions: coverage would change their result."""

from __future__ import annotations

import os

import pytest

not_under_coverage = pytest.mark.skipif("COVERAGE_RUN" in os.environ, reason="coverage changes what is measured")
