"""API keys: their file, and the verification of keys."""
