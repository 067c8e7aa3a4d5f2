"""The restart machine of a slot: which worker it has, which one it waits for, and what it does next. A table.

Driven by ``slot.py``. Pure: no clock, no trio, no I/O; it says what is to be done and does nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class State(enum.StrEnum):
    """What a slot has at the moment."""

    EMPTY = "empty"
    """Nothing yet."""
    STARTING = "starting"
    """A worker that is not ready yet, and none that serves."""
    SERVING = "serving"
    RENEWING = "renewing"
    """A worker that serves, and a successor that is not ready yet."""
    WAITING = "waiting"
    """No worker: it died, and the next one's time has not come."""
    LEAVING = "leaving"
    """A worker that drains and will have no successor."""
    GONE = "gone"
    """No worker, for good."""


class Event(enum.StrEnum):
    """What happens to a slot. *The worker* is the one that the slot has, not a successor and not one that drains."""

    STARTED = "started"
    """The slot's life begins."""
    READY = "ready"
    """The worker serves."""
    DIED = "died"
    """The worker has gone, whoever ended it."""
    WAITED = "waited"
    """The time to wait is over."""
    RENEW = "renew"
    """A fresh worker is wanted: a reload, or the worker asked to be recycled."""
    SUCCESSOR_READY = "successor ready"
    SUCCESSOR_DIED = "successor died"
    STOP = "stop"
    """The slot is to be given up: the master stops, or is to have fewer workers."""


class Action(enum.StrEnum):
    """What whoever drives the machine must do now."""

    SPAWN = "spawn"
    """Start a worker."""
    SPAWN_SUCCESSOR = "spawn successor"
    PROMOTE = "promote"
    """The successor is the worker from now on; the old one drains by itself."""
    ADOPT = "adopt"
    """The successor is the worker from now on, though it is not ready."""
    WAIT = "wait"
    """Wait as long as ``backoff.py`` says, then report ``WAITED``."""
    DRAIN = "drain"
    """Let the worker end; it has no successor."""
    DISCARD = "discard"
    """End the successor that was not ready; nobody waits for it."""


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
        # The successor is on its way already: nothing is nearer to serving than that.
        (State.RENEWING, Event.DIED): (State.STARTING, (Action.ADOPT,)),
        (State.RENEWING, Event.STOP): (State.LEAVING, (Action.DISCARD, Action.DRAIN)),
        (State.WAITING, Event.WAITED): (State.STARTING, (Action.SPAWN,)),
        # New code may be what it was waiting for.
        (State.WAITING, Event.RENEW): (State.STARTING, (Action.SPAWN,)),
        (State.WAITING, Event.STOP): (State.GONE, ()),
        (State.LEAVING, Event.DIED): (State.GONE, ()),
    }
)
"""Every move there is. Any other event leaves the state as it is: it came too late to matter."""


class SlotMachine:
    """One slot's state."""

    def __init__(self) -> None:
        self.state = State.EMPTY

    def on(self, event: Event) -> tuple[Action, ...]:
        """Take an event; gives what is to be done, in this order."""
        self.state, actions = TABLE.get((self.state, event), (self.state, ()))
        return actions

    @property
    def is_settled(self) -> bool:
        """Whether a renewal could begin, or none ever will."""
        return self.state in (State.SERVING, State.WAITING, State.LEAVING, State.GONE)
