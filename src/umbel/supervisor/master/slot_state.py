"""The state machine of a slot, as a table: state and event determine the next state and the actions.

Pure: no clock, no trio, no I/O. ``slot.py`` reports the events and carries out the actions.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class State(enum.StrEnum):
    """The states of a slot. *The worker* is the current one: not the successor, and not one that was replaced."""

    EMPTY = "empty"
    """The slot has had no worker."""
    STARTING = "starting"
    """The worker is not ready yet."""
    SERVING = "serving"
    """The worker is ready."""
    RENEWING = "renewing"
    """The worker is ready, and its successor is not ready yet."""
    WAITING = "waiting"
    """The worker has died, and the delay before the next start is not over."""
    LEAVING = "leaving"
    """The worker drains, and gets no successor."""
    GONE = "gone"
    """There is no worker and will be none. Final."""


class Event(enum.StrEnum):
    """The events of a slot; *the worker* as in ``State``."""

    STARTED = "started"
    """The slot begins to run."""
    READY = "ready"
    """The worker is ready."""
    DIED = "died"
    """The worker has ended, for any reason."""
    WAITED = "waited"
    """The delay before the next start is over."""
    RENEW = "renew"
    """A replacement of the worker was requested."""
    SUCCESSOR_READY = "successor ready"
    """The successor is ready."""
    SUCCESSOR_DIED = "successor died"
    """The successor has ended before it was ready."""
    STOP = "stop"
    """The end of the slot was requested."""


class Action(enum.StrEnum):
    """What the driver of the machine must do; *the worker* as in ``State``."""

    SPAWN = "spawn"
    """Start a worker."""
    SPAWN_SUCCESSOR = "spawn successor"
    """Start a successor."""
    PROMOTE = "promote"
    """Make the successor the worker, and drain the old worker."""
    ADOPT = "adopt"
    """Make the successor the worker, although it is not ready: the old worker has ended."""
    WAIT = "wait"
    """Wait for the delay of ``Backoff``, then report ``WAITED``."""
    DRAIN = "drain"
    """Drain the worker."""
    DISCARD = "discard"
    """End the successor, which is not ready."""


Move = tuple[State, tuple[Action, ...]]

TABLE: Mapping[tuple[State, Event], Move] = MappingProxyType(
    {
        (State.EMPTY, Event.STARTED): (State.STARTING, (Action.SPAWN,)),
        (State.EMPTY, Event.STOP): (State.GONE, ()),
        (State.STARTING, Event.READY): (State.SERVING, ()),
        (State.STARTING, Event.DIED): (State.WAITING, (Action.WAIT,)),
        (State.STARTING, Event.STOP): (State.LEAVING, (Action.DRAIN,)),
        (State.SERVING, Event.DIED): (State.WAITING, (Action.WAIT,)),
        (State.SERVING, Event.RENEW): (State.RENEWING, (Action.SPAWN_SUCCESSOR,)),
        (State.SERVING, Event.STOP): (State.LEAVING, (Action.DRAIN,)),
        (State.RENEWING, Event.SUCCESSOR_READY): (State.SERVING, (Action.PROMOTE,)),
        (State.RENEWING, Event.SUCCESSOR_DIED): (State.SERVING, ()),
        # The successor is starting already: no other process could be ready sooner.
        (State.RENEWING, Event.DIED): (State.STARTING, (Action.ADOPT,)),
        (State.RENEWING, Event.STOP): (State.LEAVING, (Action.DISCARD, Action.DRAIN)),
        (State.WAITING, Event.WAITED): (State.STARTING, (Action.SPAWN,)),
        # A reload may bring the code or configuration with which the next start succeeds: it must not wait.
        (State.WAITING, Event.RENEW): (State.STARTING, (Action.SPAWN,)),
        (State.WAITING, Event.STOP): (State.GONE, ()),
        (State.LEAVING, Event.DIED): (State.GONE, ()),
    }
)
"""All transitions. Any other pair of state and event changes nothing and has no action."""


class SlotMachine:
    """The present state of one slot."""

    def __init__(self) -> None:
        self.state = State.EMPTY

    def on(self, event: Event) -> tuple[Action, ...]:
        """Change the state as ``TABLE`` says for ``event``; return the actions, to be carried out in this order."""
        self.state, actions = TABLE.get((self.state, event), (self.state, ()))
        return actions

    @property
    def is_settled(self) -> bool:
        """Whether a renewal can begin now, or never can again; False while the next worker is not ready."""
        return self.state in (State.SERVING, State.WAITING, State.LEAVING, State.GONE)
