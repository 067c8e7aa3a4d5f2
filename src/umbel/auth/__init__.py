"""Authentication and authorization: who makes a request, and whether the route is open to them."""

from __future__ import annotations

from ..core.identity import Identity
from .current_identity import current

__all__ = ["Identity", "current"]
