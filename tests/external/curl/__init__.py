"""Tests with curl, as make external ARGS=curl runs them."""
