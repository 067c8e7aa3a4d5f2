"""What master and worker say to each other: one JSON object per line, ``{"is": "ready", ...}``.

Encoded and decoded here for both ends of the channel. Pure. What is not understood is an error, never a guess: both
ends are of one version, because a reload replaces workers only by fresh interpreters of the same installation.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...server.limits.limits import Limits

LINE_BYTES_MAX = 256 * 1024
"""A longer line breaks the channel."""
TEXT_CHARS_MAX = 16 * 1024
"""Of a traceback or a reason; its end stays, since the cause stands there."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", omit_defaults=True):
    """Any message."""


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """Down, once, before anything else: what the worker is to serve, and how."""

    slot: int
    generation: int
    app: str | None
    """``module:app``; None for what the configuration describes."""
    config: str | None
    """The path of umbel.toml, if there is one."""
    routes: int = 0
    """The routes that the master has found in umbel.toml."""
    server: dict[str, Any] = {}
    """Hypercorn's settings, as the master has read them."""
    limits: Limits | None = None
    """For an application that carries none of its own."""
    logs: dict[str, Any] = {}
    """The section of that name, for an application that keeps no records of its own."""
    logs_required: bool = False
    """Whether that stands in a file."""
    secure: tuple[int, ...] = ()
    """Descriptors of listening sockets that speak TLS."""
    insecure: tuple[int, ...] = ()
    heartbeat_every: float
    orphan_grace: float
    max_rss: int | None = None
    max_lifetime: float | None = None
    check_only: bool = False
    """Load the application, run its lifespan, and end."""


class State(Message, frozen=True, kw_only=True, tag="state"):
    """Down: how the whole is."""

    ready: int
    degraded: bool


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """Down: end. After ``delay`` seconds accept nothing more, ``grace`` seconds later cut what is left.

    ``quick``: be gone within ``QUICK_S``; a worker that drains already cuts at once.
    """

    grace: float
    delay: float = 0.0
    quick: bool = False


class ReopenLogs(Message, frozen=True, kw_only=True, tag="reopen_logs"):
    """Down: write into the files that stand at the logs' paths now; answered by ``logs_reopened``."""


class AskStats(Message, frozen=True, kw_only=True, tag="ask_stats"):
    """Down: answered by ``stats``."""


class AskTree(Message, frozen=True, kw_only=True, tag="ask_tree"):
    """Down: answered by ``tree``."""


class Failed(Message, frozen=True, kw_only=True, tag="failed"):
    """Up: it will not get ready, and why."""

    reason: str
    traceback: str = ""


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """Up: the lifespan is up and the listeners are polled."""


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Up, every ``heartbeat_every`` seconds from ``ready`` on, also while draining: the loop turns."""

    lag_ms: float
    """How late this one is."""
    inflight: int
    tasks: int
    rss: int
    connections: int
    requests: int
    """Since the start."""


class Recycle(Message, frozen=True, kw_only=True, tag="recycle"):
    """Up: replace me. It serves on until it is told to drain."""

    reason: str


class LogsReopened(Message, frozen=True, kw_only=True, tag="logs_reopened"):
    """Up: nothing is written into the old files any more."""


class Stats(Message, frozen=True, kw_only=True, tag="stats"):
    """Up: the counters of the server, and of the application if it has ``statistics()``."""

    server: dict[str, Any]
    app: dict[str, Any] = {}


class Tree(Message, frozen=True, kw_only=True, tag="tree"):
    """Up: the live tasks, a line each, children indented."""

    lines: tuple[str, ...]


class Bye(Message, frozen=True, kw_only=True, tag="bye"):
    """Up, last: it ends now."""

    reason: str


Down = Start | State | Drain | ReopenLogs | AskStats | AskTree
Up = Failed | Ready | Heartbeat | Recycle | LogsReopened | Stats | Tree | Bye

_encoder = msgspec.json.Encoder(enc_hook=str)
_down: msgspec.json.Decoder[Down] = msgspec.json.Decoder(Down)
_up: msgspec.json.Decoder[Up] = msgspec.json.Decoder(Up)


def encode(message: Message) -> bytes:
    """The message with its line end."""
    return _encoder.encode(message) + b"\n"


def decode_down(line: bytes) -> Down:
    """A message of the master's.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _down.decode(line)


def decode_up(line: bytes) -> Up:
    """A message of a worker's.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _up.decode(line)
