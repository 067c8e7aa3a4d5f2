"""A call's own policies, in place of its upstream's.

Made by the plan, once per call. They travel in the request's extensions, where the upstream's layers look for them; the
composition itself knows nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.schema import Call
from ..policy.hedge import HEDGE, HedgeRules
from ..policy.retry import RETRY, RetryOn, RetryRules
from ..policy.sharing import COALESCE


def overrides_of(call: Call) -> Mapping[str, Any]:
    """The extensions of the call's requests."""
    found: dict[str, Any] = {}
    if (retry := call.retry) is not None:
        on = RetryOn() if retry.on is None else RetryOn.of(retry.on)
        found[RETRY] = RetryRules(retry.attempts, on, retry.backoff, retry.max_backoff)
    if call.hedge is not None:
        found[HEDGE] = HedgeRules.of(call.hedge.after, call.hedge.max)
    if call.coalesce is not None:
        found[COALESCE] = call.coalesce
    return found
