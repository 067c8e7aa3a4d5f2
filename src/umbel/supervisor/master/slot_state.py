"""The state machine of a slot, as a table: state and event give the next state and the actions.

Pure: no clock, no trio, no I/O. It names actions and carries out none.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class State(enum.StrEnum):
    """The states."""

    EMPTY = "empty"
    """No worker yet."""
    STARTING = "starting"
    """A worker that is not ready yet, and none that serves."""
    SERVING = "serving"
    RENEWING = "renewing"
    """A worker that serves, and a successor that is not ready yet."""
    WAITING = "waiting"
    """No worker: the last one died, and the delay before the next one is not over."""
    LEAVING = "leaving"
    """A worker that drains and will have no successor."""
    GONE = "gone"
    """No worker, for good."""


class Event(enum.StrEnum):
    """What happens to a slot. *The worker* is its current one, neither a successor nor one that drains."""

    STARTED = "started"
    """The slot has been made."""
    READY = "ready"
    """The worker is ready."""
    DIED = "died"
    """The worker has ended, for any reason."""
    WAITED = "waited"
    """The delay is over."""
    RENEW = "renew"
    """The worker is to be replaced: by a reload, or at its own request."""
    SUCCESSOR_READY = "successor ready"
    SUCCESSOR_DIED = "successor died"
    STOP = "stop"
    """The slot is to end: the master stops, or reduces the number of workers."""


class Action(enum.StrEnum):
    """What the driver of the machine must do."""

    SPAWN = "spawn"
    """Start a worker."""
    SPAWN_SUCCESSOR = "spawn successor"
    PROMOTE = "promote"
    """The successor becomes the worker, and the old one drains."""
    ADOPT = "adopt"
    """The successor becomes the worker, though it is not ready; the old one has ended."""
    WAIT = "wait"
    """Wait for the delay of ``Backoff``, then report ``WAITED``."""
    DRAIN = "drain"
    """Drain the worker; it has no successor."""
    DISCARD = "discard"
    """End the successor, which was not ready."""


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
        # The successor is starting already: no new worker could be ready sooner.
        (State.RENEWING, Event.DIED): (State.STARTING, (Action.ADOPT,)),
        (State.RENEWING, Event.STOP): (State.LEAVING, (Action.DISCARD, Action.DRAIN)),
        (State.WAITING, Event.WAITED): (State.STARTING, (Action.SPAWN,)),
        # A renewal may bring what makes the next start succeed.
        (State.WAITING, Event.RENEW): (State.STARTING, (Action.SPAWN,)),
        (State.WAITING, Event.STOP): (State.GONE, ()),
        (State.LEAVING, Event.DIED): (State.GONE, ()),
    }
)
"""All transitions. Any other event changes nothing: it came too late to matter."""


class SlotMachine:
    """The state of one slot."""

    def __init__(self) -> None:
        self.state = State.EMPTY

    def on(self, event: Event) -> tuple[Action, ...]:
        """Take an event; gives the actions, in the order in which they must be carried out."""
        self.state, actions = TABLE.get((self.state, event), (self.state, ()))
        return actions

    @property
    def is_settled(self) -> bool:
        """Whether a renewal can begin, or never will."""
        return self.state in (State.SERVING, State.WAITING, State.LEAVING, State.GONE)
