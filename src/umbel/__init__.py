"""Umbel: a composition gateway for HTTP on trio."""
