"""Tests with h2load: ``make external ARGS=h2load``."""
