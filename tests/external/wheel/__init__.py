"""Tests with the built wheel: ``make external ARGS=wheel``."""
