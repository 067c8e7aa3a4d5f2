"""Tests with slowhttptest: ``make external ARGS=slowhttptest``."""
