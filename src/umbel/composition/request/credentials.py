"""Credentials of the client: whether a call sends one, which decides what a 401 of its upstream means.

The answer takes over an upstream's 401 only if the client can act on it. A call without a credential of the client's
has failed because of the gateway's own credential, or for lack of one: that is a 502, and no client is asked to log in.
The decision is made at load, from names alone: a client that sent no credential must see the challenge too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ...core.http.forward_all import STAR
from ...core.http.secret_fields import may_be_secret

# Names that look like those of secrets and are not: keys of requests and caches, keywords, authors.
_KEYS = frozenset({"idempotency-key", "sec-websocket-key", "cache-key", "sort-key", "routing-key"})
_WORDS = re.compile(r"keyword|author(?!i)")
# Short names of secrets; they count only as a whole word.
_SHORT = frozenset({"bearer", "dpop", "hmac", "otp", "passcode", "passphrase", "pin", "pwd", "sid", "sig", "totp"})


@lru_cache(maxsize=1024)
def is_credential(name: str) -> bool:
    """Whether a header field, a parameter or a member of this name may be a credential."""
    folded = name.lower().replace("_", "-")
    if folded in _KEYS:
        return False
    return may_be_secret(_WORDS.sub("", folded).encode("ascii", "replace")) or not _SHORT.isdisjoint(folded.split("-"))


def carries_credential(names: Iterable[str], *, body: bool, own: bool) -> bool:
    """Whether a call sends a credential of the client's.

    Args:
        names: the client's header fields, parameters and members of the body that it sends; ``STAR`` for all.
        body: it sends the client's body as a whole, which may hold a credential (that of a login does).
        own: the configuration gives it a credential of the gateway's, so that a 401 is not about the body.
    """
    return any(name == STAR or is_credential(name) for name in names) or (body and not own)
