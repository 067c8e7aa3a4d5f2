"""Tests with logrotate, as make external ARGS=logrotate runs them."""
