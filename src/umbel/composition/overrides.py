"""A call's own policies, in place of its upstream's.

Made by the plan, once per call of the configuration, or by ``gather.py`` for one that is made in code. They travel in
the request's extensions, where the upstream's layers look for them; the composition knows nothing of what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..config.schema import Call
from ..policy.hedge import HEDGE, HedgeRules
from ..policy.retry import RETRY, RetryOn, RetryRules
from ..policy.sharing import COALESCE

if TYPE_CHECKING:
    from .options import HedgeOptions, RetryOptions

ATTEMPTS_MAX = 10
HEDGES_MAX = 3
"""The bounds of the configuration, for calls made in code."""


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


def in_code(retry: RetryOptions | None, hedge: HedgeOptions | None, coalesce: bool | None) -> Mapping[str, Any]:
    """The extensions of the requests of a call made in code.

    Raises:
        ValueError: numbers out of range, or something that cannot be retried on.
    """
    found: dict[str, Any] = {}
    if retry is not None:
        rules: dict[str, Any] = dict(retry)
        if "on" in retry:
            rules["on"] = RetryOn.of(retry["on"])
        found[RETRY] = RetryRules(**rules)
        if found[RETRY].attempts > ATTEMPTS_MAX:
            raise ValueError(f"a call has {ATTEMPTS_MAX} attempts at most, not {found[RETRY].attempts}")
    if hedge is not None:
        found[HEDGE] = HedgeRules.of(**hedge)
        if found[HEDGE].max > HEDGES_MAX:
            raise ValueError(f"a call has {HEDGES_MAX} hedges at most, not {found[HEDGE].max}")
    if coalesce is not None:
        found[COALESCE] = coalesce
    return found
