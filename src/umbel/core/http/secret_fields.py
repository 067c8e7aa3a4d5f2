"""Which header fields may hold one user's secret, by their names."""

from __future__ import annotations

import re

_SECRET = re.compile(rb"assertion|auth|cookie|credential|jwt|key|passw|secret|session|signature|token")


def may_be_secret(name: bytes) -> bool:
    """Whether the value of a field of this name (in lower case) may be one user's secret: no memory keeps it."""
    return _SECRET.search(name) is not None
