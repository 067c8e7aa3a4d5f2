"""Product token of Umbel, as in User-Agent (RFC 9110 section 10.1.5)."""

from __future__ import annotations

from importlib import import_module

# The version is defined in the package itself, where build tools read it. No other module of umbel is imported.
PRODUCT = f"{__name__.partition('.')[0]}/{import_module(__name__.partition('.')[0]).__version__}"
"""The default User-Agent of calls and health checks: many public APIs refuse requests without one."""
