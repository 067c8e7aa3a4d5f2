"""The commands about cassettes: ``record`` and ``replay``."""
