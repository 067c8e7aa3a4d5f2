"""Helpers for tests of real processes: workers, masters, and the functions that a request enters."""
