"""Header fields whose values may be secrets of one user."""

from __future__ import annotations

import re

_SECRET = re.compile(rb"assertion|auth|cookie|credential|jwt|key|passw|secret|session|signature|token")


def may_be_secret(name: bytes) -> bool:
    """Whether the value of a field of this name (in lower case) may be a secret. Such a value must not be cached."""
    return _SECRET.search(name) is not None
