"""Tests with curl: ``make external ARGS=curl``."""
