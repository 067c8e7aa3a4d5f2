"""Limits on clients and applications: sizes, times, numbers, and what enforces them."""
