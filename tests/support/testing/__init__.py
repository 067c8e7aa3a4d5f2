"""Help for the tests of ``umbel.testing``."""
