"""Authentication and authorization: who makes a request, and whether the route is open to them."""

from __future__ import annotations

from ..core.identity import Identity

__all__ = ["Identity"]
