"""Tests that measure time or count functions."""

from __future__ import annotations

import os

import pytest

not_under_coverage = pytest.mark.skipif("COVERAGE_RUN" in os.environ, reason="coverage changes what is measured")
