"""Policies of a call: the retry, hedge and coalesce rules that replace those of its upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ...config.schema.sections import Call
from ...policy.hedge import HedgeRules
from ...policy.retry import RetryOn, RetryRules

if TYPE_CHECKING:
    from .call_options import HedgeOptions, RetryOptions

ATTEMPTS_MAX = 10
HEDGES_MAX = 3
"""The bounds for calls made in code; the schema of the configuration has the same bounds."""


class CallPolicies(NamedTuple):
    """The policies that a call sets; None: the upstream's policy holds."""

    retry: RetryRules | None = None
    hedge: HedgeRules | None = None
    coalesce: bool | None = None
    follows: bool = False
    """Whether redirects are followed."""

    @classmethod
    def of(cls, call: Call, *, follows: bool = False) -> CallPolicies:
        """The policies of a configured call."""
        retry = hedge = None
        if call.retry is not None:
            on = RetryOn() if call.retry.on is None else RetryOn.of(call.retry.on)
            retry = RetryRules(call.retry.attempts, on, call.retry.backoff, call.retry.max_backoff)
        if call.hedge is not None:
            hedge = HedgeRules.of(call.hedge.after, call.hedge.max)
        return cls(retry, hedge, call.coalesce, follows)

    @classmethod
    def of_options(
        cls,
        retry: RetryOptions | None,
        hedge: HedgeOptions | None,
        coalesce: bool | None,
        *,
        follows: bool = False,
    ) -> CallPolicies:
        """The policies of a call made in code.

        Raises:
            ValueError: a number is out of range, or ``on`` holds an unknown kind or status.
        """
        retry_rules = hedge_rules = None
        if retry is not None:
            rules: dict[str, Any] = dict(retry)
            if "on" in retry:
                rules["on"] = RetryOn.of(retry["on"])
            retry_rules = RetryRules(**rules)
            if retry_rules.attempts > ATTEMPTS_MAX:
                raise ValueError(f"a call may have at most {ATTEMPTS_MAX} attempts, not {retry_rules.attempts}")
        if hedge is not None:
            hedge_rules = HedgeRules.of(**hedge)
            if hedge_rules.max > HEDGES_MAX:
                raise ValueError(f"a call may have at most {HEDGES_MAX} hedges, not {hedge_rules.max}")
        return cls(retry_rules, hedge_rules, coalesce, follows)


NO_POLICIES = CallPolicies()
