"""Tests with slowhttptest, as make external ARGS=slowhttptest runs them."""
