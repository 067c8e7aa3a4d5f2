"""Tests with nginx: ``make external ARGS=nginx``."""
