"""Credentials of the client: whether a call sends one. This decides what a 401 response to the call means.

The answer takes over a 401 only if the client can act on it. A call without a credential of the client got the 401
because of the gateway's own credential, or because it has none. Then the answer is 502, and no client is asked to log
in. The decision is made at load, from the names that the call sends: a client that has sent no credential so far must
see the challenge too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from ...core.http.forward_all import STAR
from ...core.http.secret_fields import may_be_secret

# Names that resemble those of secrets: keys of requests and caches, keywords, authors.
_KEYS = frozenset({"idempotency-key", "sec-websocket-key", "cache-key", "sort-key", "routing-key"})
_WORDS = re.compile(r"keyword|author(?!i)")
# Short names of secrets. They count only as a whole word.
_SHORT = frozenset({"bearer", "dpop", "hmac", "otp", "passcode", "passphrase", "pin", "pwd", "sid", "sig", "totp"})


@lru_cache(maxsize=1024)
def is_credential(name: str) -> bool:
    """Whether a header field, a parameter or a body member of this name may be a credential."""
    folded = name.lower().replace("_", "-")
    if folded in _KEYS:
        return False
    return may_be_secret(_WORDS.sub("", folded).encode("ascii", "replace")) or not _SHORT.isdisjoint(folded.split("-"))


def carries_credential(names: Iterable[str], *, body: bool, own: bool) -> bool:
    """Whether a call sends a credential of the client.

    Args:
        names: the names of the client's header fields, parameters and body members that the call sends; ``STAR``: all.
        body: the call sends the client's body as a whole; it may hold a credential, as that of a login does.
        own: the call sends a credential of the gateway, so that a 401 is not about the body.
    """
    return any(name == STAR or is_credential(name) for name in names) or (body and not own)
