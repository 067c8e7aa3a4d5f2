"""What the engine knows of one call of a composition while it is under way, beside what its upstream is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.call import CallContext

if TYPE_CHECKING:
    from ..core.call import Call
    from .call import CallRules, Decoded
    from .fan_out import FanOut


class RunningCall(CallContext):
    """A call that is under way, or about to be: what its upstream is told, and what its result will mean."""

    __slots__ = ("call_object", "decoded", "fan_out", "method", "number", "rules", "started_at")

    rules: CallRules
    decoded: Decoded
    """Its body, where that was decoded beforehand; deleted with its result."""
    method: str
    started_at: float
    call_object: Call
    """Deleted when the call has ended or will never start. It refers to this object, and a cycle would wait for the
    garbage collector."""
    fan_out: FanOut | None
    """The ``each`` that it is an item of."""
    number: int
    """The item's."""
