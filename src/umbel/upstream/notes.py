"""What the pool tells the attempt layer of the exchange under way, whatever becomes of it.

Put into ``request.extensions`` by ``attempt.py``, filled in by ``pool.py``. A value with two fields, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

NOTES = "umbel.attempt"
"""The key of the ``Notes`` in ``httpx.Request.extensions``."""
REPLACES = "umbel.replaces"
"""The key, in the same place, of the time at which an attempt began that was sent on a kept connection, which was dead:
this request goes on with it, on a new one."""


@dataclass(slots=True)
class Notes:
    """Written while the attempt runs, so that a cancelled one leaves them too."""

    status: int | None = None
    """The response's status; None if no head came."""
    reused: bool = False
    """Whether the connection had served before."""
