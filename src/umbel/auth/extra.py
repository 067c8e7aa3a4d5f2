"""The libraries of ``umbel[auth]``, which are loaded when they are first needed."""

from __future__ import annotations

from functools import cache
from importlib import import_module

HOW_TO_INSTALL = "pip install 'umbel[auth]'"
"""The command that installs the libraries."""
TOKENS, CERTIFICATES = "joserfc.jwa", "cryptography.x509"
"""The modules that verify tokens, and that read certificates."""


@cache
def is_installed(module: str) -> bool:
    """Whether a module of the libraries can be imported."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True
