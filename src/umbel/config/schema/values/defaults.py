"""Defaults of keys that a command needs without the schema, whose import takes some tenths of a second."""

LOGS_DIR = "logs"
"""The default of ``[logs] dir``, relative to the configuration file."""
