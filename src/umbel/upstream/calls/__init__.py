"""Calls to an upstream and their attempts."""
