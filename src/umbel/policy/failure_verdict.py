"""Failure verdict: whether the end of an attempt says that its upstream failed, that it works, or nothing.

Breaker, ejection, load and adaptive limit use the same verdict, so that they count alike. It takes the kind and the
status only. Who cut an attempt must be known before.
"""

from __future__ import annotations

from ..core.failure_kinds import KINDS, Kind

# The upstream answered, although the response is of no use.
_ANSWERED = frozenset({Kind.TOO_BIG, Kind.BAD_BODY})


def failed(kind: Kind | None, status: int | None) -> bool | None:
    """Whether an attempt that ended so failed by its upstream's fault.

    Args:
        kind: why it failed; None for a whole response.
        status: the response's, as far as one came.

    Returns:
        True where the table of kinds counts it against the upstream (of statuses: the 5xx), False where the upstream
        answered, None where it says nothing: it was cut, never sent, or failed by a fault of ours.
    """
    if kind is None or kind is Kind.STATUS:
        return status is not None and status >= 500
    if KINDS[kind].counts:
        return True
    return False if kind in _ANSWERED else None
