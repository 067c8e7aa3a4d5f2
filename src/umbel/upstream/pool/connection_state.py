"""State machine of an HTTP/1.1 connection: states, events and transitions of its request and response."""

from __future__ import annotations

import enum
from types import MappingProxyType


class State(enum.Enum):
    """State of a connection: how far its request is sent, and how far its response is received."""

    # ``enum`` hashes the name of a member. Members are compared by identity, so the faster identity hash is as good.
    __hash__ = object.__hash__

    IDLE = "no request in flight; the connection may serve"
    SENDING = "the request is being sent; no head of a response yet"
    AWAITING = "the request is sent; no head of a response yet"
    EARLY = "the response is being received while the request is still being sent"
    RECEIVING = "the request is sent; the response is being received"
    CLOSED = "the connection must not be used"


class Event(enum.Enum):
    """Event of a connection's request or response."""

    __hash__ = object.__hash__

    START = enum.auto()
    """A task of its own begins to send a request."""
    START_WHOLE = enum.auto()
    """A small request is sent as a whole before anything is received."""
    SENT = enum.auto()
    """The last byte of the request was sent."""
    HEAD = enum.auto()
    """The head of the response was read."""
    END = enum.auto()
    """The response is complete, and the connection may persist."""
    LAST = enum.auto()
    """The response is complete, and the connection must be closed."""
    CLOSE = enum.auto()
    """The connection is closed, for whatever reason."""


TRANSITIONS = MappingProxyType(
    {
        (State.IDLE, Event.START): State.SENDING,
        (State.IDLE, Event.START_WHOLE): State.AWAITING,
        (State.SENDING, Event.SENT): State.AWAITING,
        (State.SENDING, Event.HEAD): State.EARLY,
        (State.AWAITING, Event.HEAD): State.RECEIVING,
        (State.EARLY, Event.SENT): State.RECEIVING,
        # The response ended before the request was sent: the peer would read the rest as the next request.
        (State.EARLY, Event.END): State.CLOSED,
        (State.EARLY, Event.LAST): State.CLOSED,
        (State.RECEIVING, Event.END): State.IDLE,
        (State.RECEIVING, Event.LAST): State.CLOSED,
        **{(state, Event.CLOSE): State.CLOSED for state in State},
    }
)
"""The state after an event. Any other pair is an internal error, and raises KeyError."""
