"""Tests with chromium, as make external ARGS=chromium runs them."""
