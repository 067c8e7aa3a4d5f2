"""The configuration file of Hypercorn, ``hypercorn.toml``, read strictly."""
