"""``"*"`` where a call names what it forwards of the client's request: all of it, but for the fields listed here.

What is left out can still be forwarded by its own name, unless it belongs to the connection or Umbel writes it.
"""

from __future__ import annotations

from ...net.bounded_cache import BoundedCache
from .hop_by_hop import hop_by_hop_among

STAR = "*"

_CREDENTIALS = frozenset({"authorization", "cookie"})
_ORIGIN = frozenset({"forwarded", "host", "remote-addr", "x-real-ip"})
"""Who the client is and what it asked: the gateway says it in fields of its own."""
_GATEWAYS = frozenset({"accept-encoding", "traceparent", "tracestate", "via", "x-request-id"})
CONDITIONS = frozenset({"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"})
"""The conditional request fields, and those of ranges (RFC 9110 sections 13 and 14): an upstream may answer them with
less than a representation, or with an error. They are about the gateway's answer, which is no upstream's."""
_DANGEROUS = frozenset({"expect", "proxy"})
"""``Proxy`` becomes the variable HTTP_PROXY of a CGI program."""
_LEFT_OUT = _CREDENTIALS | _ORIGIN | _GATEWAYS | CONDITIONS | _DANGEROUS
_PREFIXES = ("content-", "x-forwarded-")

LEFT_OUT_IN_WORDS = (
    "authorization, cookie, host, accept-encoding, content-*, forwarded, x-forwarded-*, x-real-ip, conditionals and "
    "ranges, what belongs to the connection, and what Umbel writes itself"
)

_known: BoundedCache[str, bool] = BoundedCache(1024, 128)


def star_leaves_out(name: str) -> bool:
    """Whether ``"*"`` does not stand for the header field of this name (in lower case).

    Many programs take an underscore for a hyphen, so both are one here.
    """
    left_out = _known.get(name)
    if left_out is None:
        hyphened = name.replace("_", "-")
        left_out = hyphened in _LEFT_OUT or hyphened.startswith(_PREFIXES) or bool(hop_by_hop_among((hyphened,), None))
        _known.add(name, left_out)
    return left_out
