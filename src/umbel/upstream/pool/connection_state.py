"""State machine of a connection with its request and response: its states, events and transitions."""

from __future__ import annotations

import enum
from types import MappingProxyType


class State(enum.Enum):
    """State of a connection: what of the request is sent, what of the response has come."""

    # A member is equal to itself alone, so its identity is as good a hash as its name's, and computed in C.
    __hash__ = object.__hash__

    IDLE = "nothing in flight; may serve"
    SENDING = "request going out, no response yet"
    AWAITING = "request out, no response yet"
    EARLY = "response coming while the request is still going out"
    RECEIVING = "request out, response coming"
    CLOSED = "of no more use"


class Event(enum.Enum):
    """Event of a request or its response."""

    __hash__ = object.__hash__

    START = enum.auto()
    START_WHOLE = enum.auto()
    """A request that goes out as a whole before anything is read."""
    SENT = enum.auto()
    HEAD = enum.auto()
    END = enum.auto()
    """The response is complete and the connection may persist."""
    LAST = enum.auto()
    """The response is complete, and it is the connection's last."""
    CLOSE = enum.auto()


TRANSITIONS = MappingProxyType(
    {
        (State.IDLE, Event.START): State.SENDING,
        (State.IDLE, Event.START_WHOLE): State.AWAITING,
        (State.SENDING, Event.SENT): State.AWAITING,
        (State.SENDING, Event.HEAD): State.EARLY,
        (State.AWAITING, Event.HEAD): State.RECEIVING,
        (State.EARLY, Event.SENT): State.RECEIVING,
        # The peer has answered a request that it has not read: what is left of it would be read as the next one.
        (State.EARLY, Event.END): State.CLOSED,
        (State.EARLY, Event.LAST): State.CLOSED,
        (State.RECEIVING, Event.END): State.IDLE,
        (State.RECEIVING, Event.LAST): State.CLOSED,
        **{(state, Event.CLOSE): State.CLOSED for state in State},
    }
)
"""The state after an event. Any other event is a bug of ours, and a KeyError."""
