"""TODO docstring of the package by its owner."""
