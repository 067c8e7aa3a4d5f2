"""Paths of the probes that the gateway answers itself."""

from __future__ import annotations

PROBES = ("/livez", "/readyz")
"""Does the process run? Should the process get requests?"""
