"""The configuration: its schema, and the loading of umbel.toml and hypercorn.toml."""
