"""What the engine knows of one call of a composition while it is under way, beside what its upstream is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.call import CallContext

if TYPE_CHECKING:
    from .call_result import CallRules, DecodedBody
    from .fan_out import FanOut


class RunningCall(CallContext, eq=False, kw_only=True):
    """A call that is under way, or about to be: what its upstream is told, and what its result will mean."""

    rules: CallRules
    method: str
    started_at: float
    decoded: DecodedBody = None
    """Its body, where that was decoded beforehand."""
    fan_out: FanOut | None = None
    """The ``each`` that it is an item of."""
    number: int = 0
    """The item's."""
