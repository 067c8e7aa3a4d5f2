"""Helpers for tests of the whole gateway: configurations, a served application with its records, recorded answers."""
