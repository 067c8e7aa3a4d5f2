"""The schema of umbel.toml: types of keys, constraints between keys, and the sections made of both."""
