"""Tests with Chromium: ``make external ARGS=chromium``."""
