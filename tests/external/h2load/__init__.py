"""Tests with h2load, as make external ARGS=h2load runs them."""
