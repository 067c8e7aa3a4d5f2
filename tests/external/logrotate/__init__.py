"""Tests with logrotate: ``make external ARGS=logrotate``."""
