"""What may stand in umbel.toml: types, constraints, and the sections made of them."""
