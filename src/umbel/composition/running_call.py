"""Context of a call under way: the ``CallContext`` for its upstream, with the engine's own data about the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.call import CallContext

if TYPE_CHECKING:
    from .call_result import CallRules, DecodedBody
    from .fan_out import FanOut


class RunningCall(CallContext, eq=False, kw_only=True):
    """A call that is under way or about to start. Its upstream reads the inherited fields, the engine these."""

    rules: CallRules
    method: str
    started_at: float
    decoded: DecodedBody = None
    """The response's body, if it was decoded in a thread."""
    fan_out: FanOut | None = None
    """The fan-out that the call is an item of."""
    number: int = 0
    """The number of the item within its fan-out."""
