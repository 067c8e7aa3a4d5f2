"""Tests with Prometheus and promtool: ``make external ARGS=prometheus``."""
