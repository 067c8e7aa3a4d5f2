"""Quart's share: its requests, contexts, errors and test client."""
