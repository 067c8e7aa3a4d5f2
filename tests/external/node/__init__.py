"""Tests with node, as make external ARGS=node runs them."""
