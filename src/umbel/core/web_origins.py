"""Web origins (RFC 6454) as browsers send them in the field Origin, and a list of those that are allowed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .http.forward_all import STAR

_LABEL = re.compile(r"[a-z0-9_-]+")


class WebOrigins:
    """Allowed origins: exact ones, those with one wildcard label (``https://*.app.example``), or ``*`` for all.

    Origins are compared byte for byte. Browsers send scheme, host and port in lower case, without a default port. So an
    origin that is allowed has no other characters than the configuration and one host label.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self.every = STAR in origins
        """Whether all origins are allowed."""
        self._exact = frozenset(each for each in origins if STAR not in each)
        self._wildcards = frozenset(each for each in origins if "://*." in each)

    def allow(self, origin: str) -> bool:
        """Whether ``origin``, the value of the field Origin, is allowed."""
        if self.every or origin in self._exact:
            return True
        scheme, _, rest = origin.partition("://")
        label, _, parent = rest.partition(".")
        # The pattern is looked up, so the time does not depend on the number of patterns.
        return f"{scheme}://*.{parent}" in self._wildcards and _LABEL.fullmatch(label) is not None
