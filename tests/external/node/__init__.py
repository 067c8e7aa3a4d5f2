"""Tests with Node.js: ``make external ARGS=node``."""
