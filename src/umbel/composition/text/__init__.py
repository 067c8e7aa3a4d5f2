"""Templates and expressions: compiled once at load."""
