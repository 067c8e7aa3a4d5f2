"""Memory of verified tokens, bounded in entries and in bytes.

Theory
------
**What it saves.** A verification takes 30 to 600 µs of CPU time, and a client sends the same token for minutes. Only
verified tokens are kept: refused ones cost their sender a request each, and would let anybody evict the others.

**Key**: the SHA-256 of the token. Two tokens with one digest cannot be found, and the memory holds no token.

**How long an entry holds**: as long as the issuer's keys are those with which the token was verified (the same
``KeySet`` object), at most REMEMBERED_S by the monotonic clock, and until the token expires by the wall clock. So a
wall clock that is set back does not extend the minute.

**Bytes.** The claims of a token of 16 KiB may take 300 KiB as Python objects. So each entry has an estimated size, and
the oldest entries are evicted until the sum is within BYTES_PER_ENTRY for each permitted entry. ``BoundedCache`` bounds
the number only, so this cache is its own; it evicts in the same order.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from ...core.identity import Identity

if TYPE_CHECKING:
    from .key_set import KeySet

REMEMBERED_S = 60.0
"""The most seconds for which a verified token is remembered."""
BYTES_PER_ENTRY = 8192
"""The bound on the estimated bytes, for each permitted entry. Ordinary tokens take some 3 KB, estimated at 5 KB."""
_ENTRY_BYTES = 900
"""An entry without its claims: the digest, the tuple, the identity with its texts, and the place in the dict."""
_VALUE_BYTES = 100
"""A value of the claims without the bytes of its text; an empty dict in a list takes 72, a small member 100."""


class VerifiedToken(NamedTuple):
    """A verified token."""

    identity: Identity
    issuer: str
    keys: KeySet
    """The key set with which it was verified."""
    expires: float
    """When the token expires, leeway included, in seconds since 1970; inf: never."""
    forget_at: float
    """When the entry must not be used any more, by the monotonic clock."""
    size: int
    """The estimated bytes of the entry."""


def estimated_size(payload: bytes, claims: object) -> int:
    """The estimated bytes of an entry for a token with these claims, which are not less than the real ones.

    Args:
        payload: the claims as JSON.
        claims: the claims.
    """
    # A character beyond Latin-1 makes each one of its text take up to four bytes.
    width = 1 if payload.isascii() and b"\\" not in payload else 4
    return _ENTRY_BYTES + width * len(payload) + _VALUE_BYTES * _count(claims)


def _count(claims: object) -> int:
    """The number of values within a value, without recursion."""
    number, todo = 0, [claims]
    while todo:
        value: Any = todo.pop()
        if isinstance(value, dict):
            number += 1 + 2 * len(value)
            todo.extend(each for each in value.values() if isinstance(each, (dict, list)))
        elif isinstance(value, list):
            number += 1 + len(value)
            todo.extend(each for each in value if isinstance(each, (dict, list)))
    return number


class TokenCache:
    """Cache of verified tokens; see the module.

    Args:
        entries_max: the most entries; 0: nothing is kept.
    """

    def __init__(self, entries_max: int) -> None:
        self._entries: OrderedDict[bytes, VerifiedToken] = OrderedDict()
        self._entries_max = entries_max
        self._bytes_max = entries_max * BYTES_PER_ENTRY
        self.bytes = 0
        """The estimated bytes of all entries."""

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def digest(token: str) -> bytes:
        """The key of a token. Any text has one."""
        return sha256(token.encode("utf-8", "surrogatepass")).digest()

    def get(self, digest: bytes, wall: float, now: float) -> VerifiedToken | None:
        """The entry of a token, unless its time has passed; the caller must compare the key set.

        Args:
            digest: the key.
            wall: the time in seconds since 1970.
            now: the time of the monotonic clock.
        """
        entry = self._entries.get(digest)
        if entry is None or (wall < entry.expires and now < entry.forget_at):
            return entry
        self.remove(digest)
        return None

    def remove(self, digest: bytes) -> None:
        """Forget a token."""
        if (entry := self._entries.pop(digest, None)) is not None:
            self.bytes -= entry.size

    def add(self, digest: bytes, entry: VerifiedToken) -> None:
        """Keep a verified token as the newest entry, and evict the oldest ones beyond the bounds."""
        self.remove(digest)
        if entry.size > self._bytes_max:
            return
        self._entries[digest] = entry
        self.bytes += entry.size
        while len(self._entries) > self._entries_max or self.bytes > self._bytes_max:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.size


def expiry_of(exp: float | None, leeway: float, wall: float) -> float:
    """When a token expires, for ``VerifiedToken``: at most an hour from now, since no entry is kept that long.

    Args:
        exp: the claim exp, an integer of any size or a float; None: the token has none.
        leeway: the leeway in seconds.
        wall: the time in seconds since 1970.
    """
    if exp is None:
        return math.inf
    soon = wall + 3600.0
    return soon if exp > soon else float(exp) + leeway
