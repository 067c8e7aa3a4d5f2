"""Snapshots of the keys of issuers, and of an authenticator of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KeyState = Literal["ok", "failing", "none"]
"""ok: the last fetch succeeded; failing: it failed, and the last keys are still used; none: there are no keys."""


@dataclass(frozen=True, slots=True)
class KeyStatistics:
    """A snapshot of the keys of one issuer."""

    issuer: str
    source: str
    """Where the keys are from: a file, or an upstream with a path."""
    keys: int
    """Keys that are used."""
    left_out: tuple[str, ...]
    """Why other keys are not used, one sentence for each."""
    generation: int
    """How many times the keys have changed; the first set is 1."""
    age: float | None
    """Seconds since the keys were fetched; None: they were not, or they are from a file."""
    fetches: int
    """Fetches that have ended."""
    failures: int
    """Those of them that failed."""
    last_error: str
    """Why the last fetch failed; empty if it did not."""
    state: KeyState


@dataclass(frozen=True, slots=True)
class JwtStatistics:
    """A snapshot of the authenticator of a section ``[auth.NAME]``."""

    name: str
    cached: int
    """Verified tokens that are remembered."""
    cached_bytes: int
    """Their estimated bytes."""
    cache_hits: int
    cache_misses: int
    issuers: tuple[KeyStatistics, ...]
