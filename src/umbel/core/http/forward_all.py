"""Meaning of ``"*"`` in ``forward_headers``: all header fields of the client's request but those excluded here.

An excluded field can still be forwarded if it is named, unless it is hop-by-hop or Umbel writes it itself.
"""

from __future__ import annotations

from ...net.bounded_cache import BoundedCache
from .hop_by_hop import hop_by_hop_among

STAR = "*"

_CREDENTIALS = frozenset({"authorization", "cookie"})
_ORIGIN = frozenset({"forwarded", "host", "remote-addr", "x-real-ip"})
"""Fields about the client and its request. The gateway writes its own (X-Forwarded-*)."""
_GATEWAYS = frozenset({"accept-encoding", "traceparent", "tracestate", "via", "x-request-id"})
CONDITIONS = frozenset({"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"})
"""Conditional and range request fields (RFC 9110 sections 13 and 14). They refer to the representation that the gateway
sends, not to an upstream's; an upstream may respond to them with a part of a representation, or with an error."""
_DANGEROUS = frozenset({"expect", "proxy"})
"""``Proxy`` would become the environment variable HTTP_PROXY of a CGI program ("httpoxy")."""
_LEFT_OUT = _CREDENTIALS | _ORIGIN | _GATEWAYS | CONDITIONS | _DANGEROUS
_PREFIXES = ("content-", "x-forwarded-")

LEFT_OUT_IN_WORDS = (
    "authorization, cookie, host, accept-encoding, content-*, forwarded, x-forwarded-*, x-real-ip, conditionals and "
    "ranges, hop-by-hop fields, and fields that Umbel writes itself"
)

_known: BoundedCache[str, bool] = BoundedCache(1024, 128)


def star_leaves_out(name: str) -> bool:
    """Whether ``"*"`` excludes the header field of this name (in lower case).

    Underscores count as hyphens, because many programs treat both alike.
    """
    left_out = _known.get(name)
    if left_out is None:
        hyphened = name.replace("_", "-")
        left_out = hyphened in _LEFT_OUT or hyphened.startswith(_PREFIXES) or bool(hop_by_hop_among((hyphened,), None))
        _known.add(name, left_out)
    return left_out
