"""Slots in any order of events: a slot never has two workers, never loses one, and ends after a stop.

The backoff and the restart intensity are compared with their definitions.
"""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from umbel.supervisor.master.backoff import FIRST_DELAY_S, STABLE_S, Backoff, RestartIntensity
from umbel.supervisor.master.slot_state import Action, Event, SlotMachine, State

HAS_A_WORKER = {State.STARTING, State.SERVING, State.RENEWING, State.LEAVING}


class Model:
    """The processes that the driver of a slot machine would have."""

    def __init__(self) -> None:
        self.machine = SlotMachine()
        self.worker = False
        self.ready = False
        self.successor = False
        self.waiting = False
        self.drained = 0

    def possible(self, event: Event) -> bool:
        """Whether the event can occur now."""
        return {
            Event.STARTED: self.machine.state is State.EMPTY,
            Event.READY: self.worker and not self.ready,
            Event.DIED: self.worker,
            Event.WAITED: self.waiting,
            Event.RENEW: True,
            Event.SUCCESSOR_READY: self.successor,
            Event.SUCCESSOR_DIED: self.successor,
            Event.STOP: True,
        }[event]

    def happen(self, event: Event) -> None:
        if event is Event.READY:
            self.ready = True
        elif event is Event.DIED:
            self.worker = self.ready = False
        elif event is Event.WAITED:
            self.waiting = False
        elif event is Event.SUCCESSOR_DIED:
            self.successor = False
        for action in self.machine.on(event):
            self.act(action)

    def act(self, action: Action) -> None:
        match action:
            case Action.SPAWN:
                assert not self.worker
                assert not self.successor
                self.worker, self.ready, self.waiting = True, False, False
            case Action.SPAWN_SUCCESSOR:
                assert self.worker
                assert not self.successor
                self.successor = True
            case Action.PROMOTE:
                assert self.successor
                self.worker, self.ready, self.successor = True, True, False
            case Action.ADOPT:
                assert self.successor
                assert not self.worker
                self.worker, self.ready, self.successor = True, False, False
            case Action.WAIT:
                assert not self.worker
                self.waiting = True
            case Action.DRAIN:
                assert self.worker
                self.drained += 1
            case Action.DISCARD:
                assert self.successor
                self.successor = False


@given(st.lists(st.sampled_from(Event), max_size=60))
def test_no_order_of_events_loses_or_doubles_a_worker(events: list[Event]) -> None:
    model = Model()
    for event in events:
        if model.possible(event):
            model.happen(event)
        state = model.machine.state
        assert model.worker == (state in HAS_A_WORKER)
        assert model.successor == (state is State.RENEWING)
        assert model.waiting <= (state in (State.WAITING, State.GONE))
        assert model.drained <= 1


@given(st.lists(st.sampled_from(Event), max_size=60))
def test_a_stopped_slot_ends_when_its_worker_has_died(events: list[Event]) -> None:
    model = Model()
    for event in [*events, Event.STOP]:
        if model.possible(event):
            model.happen(event)
    if model.worker:
        model.happen(Event.DIED)
    assert model.machine.state is State.GONE
    assert not model.successor


@given(
    deaths=st.lists(st.one_of(st.none(), st.floats(0, STABLE_S, exclude_max=True)), min_size=1, max_size=100),
    cap=st.floats(0.2, 100),
    seed=st.integers(),
)
def test_the_backoff_is_at_most_the_cap_and_the_first_delay_times_a_power_of_two(
    deaths: list[float | None], cap: float, seed: int
) -> None:
    backoff, random = Backoff(), Random(seed)
    for number, ready_for in enumerate(deaths):
        assert 0 <= backoff.after_death(ready_for, cap, random) <= min(cap, FIRST_DELAY_S * 2**number)
    assert backoff.after_death(None, cap, random, degraded=True) == cap
    assert backoff.after_death(STABLE_S, cap, random) == 0
    assert backoff.after_death(None, cap, random) <= FIRST_DELAY_S


@given(
    gaps=st.lists(st.floats(0, 100), min_size=1, max_size=80),
    restarts=st.integers(1, 5),
    window=st.floats(1, 100),
    slots=st.integers(1, 4),
)
def test_the_restart_intensity_agrees_with_a_count_over_the_window(
    gaps: list[float], restarts: int, window: float, slots: int
) -> None:
    intensity = RestartIntensity()
    times: list[float] = []
    now = 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        recent = [time for time in times if time > now - window]
        assert intensity.add(now, restarts * slots, window) == (len(recent) > restarts * slots)
