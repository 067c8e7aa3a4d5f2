"""Tests with nginx, as make external ARGS=nginx runs them."""
