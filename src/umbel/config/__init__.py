"""The configuration: what may stand in umbel.toml, and how it is read."""
