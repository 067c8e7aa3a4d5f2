"""Decision of a composition: the rules of ``combine = "all"``, ``"first"`` and ``"quorum"``. Pure.

A composition is decided as soon as no further outcome can change the answer:

- all: a required call has failed. Successes decide nothing before the last outcome.
- first, quorum: enough candidates have succeeded (1, or ``quorum``), or too few candidates are left to reach that
  number. A required call that is no candidate decides by its failure, as with all.

``decide`` is called after each outcome; ``final_failure`` once after the last outcome, if nothing was decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...core.failure_kinds import CUT
from ...core.model import Failure, Outcome
from ..plan.plan import Plan


class Decision(NamedTuple):
    """The fact that a composition is decided. ``failure`` decides it; None: the outcomes so far make its answer."""

    failure: Failure | None


def decide(plan: Plan, outcomes: Mapping[str, Outcome], latest: Outcome) -> Decision | None:
    """The decision that the latest outcome makes; None: it decides nothing. A call that was cut decides nothing."""
    if latest.failure is not None and latest.failure.kind in CUT:
        return None
    counted = plan.needed > 0 and latest.call in plan.candidates
    if not counted:
        failed = latest.state == "failed" and not plan.by_name[latest.call].rules.optional
        return Decision(latest.failure) if failed else None
    if len(successes(plan, outcomes)) >= plan.needed:
        return Decision(None)
    open_calls = sum(name not in outcomes for name in plan.candidates)
    if len(successes(plan, outcomes)) + open_calls < plan.needed:
        return Decision(_first_failure(plan, outcomes))
    return None


def final_failure(plan: Plan, outcomes: Mapping[str, Outcome]) -> Failure | None:
    """The deciding failure after the last outcome of a composition that is not decided; None: it has an answer."""
    if plan.needed:
        short = len(successes(plan, outcomes)) < plan.needed
        return _first_failure(plan, outcomes) if short else None
    for call in plan.calls:
        outcome = outcomes[call.name]
        if outcome.failure is not None and not call.rules.optional:
            return outcome.failure
    ordered = [outcomes[call.name] for call in plan.calls]
    return worst_failure(ordered, any(call.rules.has_default for call in plan.calls))


def worst_failure(outcomes: Sequence[Outcome], any_default: bool) -> Failure | None:
    """The failure with the highest status if every call failed and no call has a default; else None.

    Without any value the answer would be empty, and must not have a status of success. Of equal statuses the first
    failure counts.
    """
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    if any_default or not failures or len(failures) < len(outcomes):
        return None
    return max(failures, key=lambda failure: failure.status)


def successes(plan: Plan, outcomes: Mapping[str, Outcome]) -> list[Outcome]:
    """The first ``plan.needed`` successes among the candidates, in config order."""
    succeeded = [outcomes[name] for name in plan.candidates if name in outcomes and outcomes[name].state == "value"]
    return succeeded[: plan.needed]


def is_complete(plan: Plan, outcomes: Mapping[str, Outcome]) -> bool:
    """Whether nothing is missing from the answer. With first and quorum only the successes in the answer count."""
    if plan.needed:
        return all(outcome.complete for outcome in successes(plan, outcomes))
    return all(outcome.complete for outcome in outcomes.values())


def _first_failure(plan: Plan, outcomes: Mapping[str, Outcome]) -> Failure | None:
    """The earliest failure of a candidate; that of a cut call only if no other candidate failed."""
    failed = [
        (outcome.failure.kind in CUT, outcome.ended_at, place, outcome.failure)
        for place, name in enumerate(plan.candidates)
        if (outcome := outcomes.get(name)) is not None and outcome.failure is not None
    ]
    return min(failed, key=lambda row: row[:3])[3] if failed else None
