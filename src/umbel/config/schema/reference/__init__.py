"""What documentation and JSON Schema say about keys: docstrings, and reasons of defaults."""
