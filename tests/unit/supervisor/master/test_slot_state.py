"""The state machine of a slot: each state under each event, and properties of all sequences of events."""

from __future__ import annotations

import pytest

from umbel.supervisor.master.slot_state import TABLE, Action, Event, SlotMachine, State

A, E, S = Action, Event, State

# The expected transitions; every other pair of state and event changes nothing.
MOVES = [
    (S.EMPTY, E.STARTED, S.STARTING, [A.SPAWN]),
    (S.EMPTY, E.STOP, S.GONE, []),
    (S.STARTING, E.READY, S.SERVING, []),
    (S.STARTING, E.DIED, S.WAITING, [A.WAIT]),
    (S.STARTING, E.STOP, S.LEAVING, [A.DRAIN]),
    (S.SERVING, E.DIED, S.WAITING, [A.WAIT]),
    (S.SERVING, E.RENEW, S.RENEWING, [A.SPAWN_SUCCESSOR]),
    (S.SERVING, E.STOP, S.LEAVING, [A.DRAIN]),
    (S.RENEWING, E.SUCCESSOR_READY, S.SERVING, [A.PROMOTE]),
    (S.RENEWING, E.SUCCESSOR_DIED, S.SERVING, []),
    (S.RENEWING, E.DIED, S.STARTING, [A.ADOPT]),
    (S.RENEWING, E.STOP, S.LEAVING, [A.DISCARD, A.DRAIN]),
    (S.WAITING, E.WAITED, S.STARTING, [A.SPAWN]),
    (S.WAITING, E.RENEW, S.STARTING, [A.SPAWN]),
    (S.WAITING, E.STOP, S.GONE, []),
    (S.LEAVING, E.DIED, S.GONE, []),
]
KNOWN = {(state, event): (after, tuple(actions)) for state, event, after, actions in MOVES}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_each_event_causes_the_tabled_transition_or_none(state: State, event: Event) -> None:
    machine = SlotMachine()
    machine.state = state
    after, actions = KNOWN.get((state, event), (state, ()))
    assert machine.on(event) == actions
    assert machine.state is after


def test_the_table_has_no_other_transitions() -> None:
    assert dict(TABLE) == KNOWN


def test_the_state_gone_is_final() -> None:
    assert not [key for key in TABLE if key[0] is State.GONE]


@pytest.mark.parametrize("state", [state for state in State if state is not State.GONE])
def test_each_state_but_leaving_and_gone_has_a_transition_for_stop(state: State) -> None:
    assert ((state, Event.STOP) in TABLE) == (state is not State.LEAVING)
