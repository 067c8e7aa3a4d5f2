"""Failure verdict: whether the end of an attempt shows that its upstream failed, that it works, or neither.

Breaker, outlier ejection and load balancing use the same verdict, so that they count alike.
"""

from __future__ import annotations

from ..core.failure_kinds import KINDS, Kind

# Kinds of an attempt whose upstream answered, although the response cannot be used.
_ANSWERED = frozenset({Kind.TOO_BIG, Kind.BAD_BODY})


def failed(kind: Kind | None, status: int | None) -> bool | None:
    """Whether an attempt failed by its upstream's fault.

    Args:
        kind: kind of the failure or cut; None for a complete response.
        status: status of the response, if there was one.

    Returns:
        True: the kind counts against the upstream (``KINDS``), or the response has a status of 500 or more.
        False: the upstream answered otherwise, even if the body cannot be used.
        None: no verdict, because the attempt was cut, was not sent, or failed by this side's fault.
    """
    if kind is None or kind is Kind.STATUS:
        return status is not None and status >= 500
    if KINDS[kind].counts:
        return True
    return False if kind in _ANSWERED else None
