"""Context of a call that an engine makes: the upstream's ``CallContext`` with the engine's data about the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.call import CallContext

if TYPE_CHECKING:
    from .call_result import CallRules, DecodedBody
    from .fan_out import FanOut


class RunningCall(CallContext, eq=False, kw_only=True):
    """The context of a call of an engine. The upstream reads the inherited fields, the engine the fields below."""

    rules: CallRules
    method: str
    decoded: DecodedBody = None
    """The body of the response, decoded in a thread; None: not decoded there."""
    fan_out: FanOut | None = None
    """The fan-out that the call is an item of; None: the call has no ``each``."""
