"""Whether a call carries a credential of the client's, so that a 401 of its upstream is about that and not about us.

An upstream's 401 is passed on where the client can do something about it. A call that carries nothing of the client's
has failed for the gateway's own credential, or for want of one: that is a 502, and no client is asked to log in for it.
It is known when the plan is made, from names alone: a client that sends no credential must hear of the challenge too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ...core.http.secret_fields import may_be_secret

STAR = "*"
"""Names everything that may be forwarded."""
# What looks like the name of a secret and is none: keys of requests and caches, keywords, authors.
_KEYS = frozenset({"idempotency-key", "sec-websocket-key", "cache-key", "sort-key", "routing-key"})
_WORDS = re.compile(r"keyword|author(?!i)")
# Short names of secrets, each a word by itself: within another word they say nothing.
_SHORT = frozenset({"bearer", "dpop", "hmac", "otp", "passcode", "passphrase", "pin", "pwd", "sid", "sig", "totp"})


@lru_cache(maxsize=1024)
def is_credential(name: str) -> bool:
    """Whether a value of the client's under this name may be a credential: of a field, a parameter or a member."""
    folded = name.lower().replace("_", "-")
    if folded in _KEYS:
        return False
    return may_be_secret(_WORDS.sub("", folded).encode("ascii", "replace")) or not _SHORT.isdisjoint(folded.split("-"))


def carries_credential(names: Iterable[str], *, body: bool, own: bool) -> bool:
    """Whether a call carries a credential of the client's.

    Args:
        names: what it sends of the client's: fields, parameters, members of the body; ``STAR`` for whatever there is.
        body: it sends the client's body as a whole, which may hold anything (a login's does).
        own: the configuration gives it a credential of the gateway's, so that the body is not the one at fault.
    """
    return any(name == STAR or is_credential(name) for name in names) or (body and not own)
