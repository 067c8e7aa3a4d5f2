"""Tests with the built wheel, as ``make external ARGS=wheel`` runs them."""
