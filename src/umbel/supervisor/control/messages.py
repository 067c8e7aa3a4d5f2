"""The messages between master and worker: one JSON object per line, such as ``{"is": "ready", ...}``.

Pure. A message that does not fit is an error and is never guessed at: both ends are of the same version, since a worker
is a new interpreter of the same installation.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...server.limits.server_limits import Limits

LINE_BYTES_MAX = 256 * 1024
"""A longer line breaks the channel."""
TEXT_CHARS_MAX = 16 * 1024
"""The bound of a traceback and of a reason. The end is kept, since the cause is there."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", omit_defaults=True):
    """Any message."""


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """To the worker, once, as the first message: what to serve, and how."""

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
    """The limits for an application that has none of its own."""
    logs: dict[str, Any] = {}
    """The section ``[logs]``, for an application that keeps no records of its own."""
    logs_required: bool = False
    """Whether the section stands in a file, so that records must be possible."""
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
    """To the worker: the state of all workers."""

    ready: int
    degraded: bool


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """To the worker: end. After ``delay`` seconds accept no more, and ``grace`` seconds later cancel what is left.

    ``quick``: end within ``QUICK_S``; a worker that drains already cancels at once.
    """

    grace: float
    delay: float = 0.0
    quick: bool = False


class ReopenLogs(Message, frozen=True, kw_only=True, tag="reopen_logs"):
    """To the worker: open the files that are at the logs' paths now. The answer is ``logs_reopened``."""


class StatsQuery(Message, frozen=True, kw_only=True, tag="stats_query"):
    """To the worker: send the counters. The answer is ``stats``."""


class TreeQuery(Message, frozen=True, kw_only=True, tag="tree_query"):
    """To the worker: send the task tree. The answer is ``tree``."""


class Failed(Message, frozen=True, kw_only=True, tag="failed"):
    """To the master: the worker will not get ready, and why."""

    reason: str
    traceback: str = ""


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """To the master: the application has started, and connections are accepted."""


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """To the master, every ``heartbeat_every`` seconds after ``ready``, also while draining: the event loop runs."""

    lag_ms: float
    """How late this heartbeat is: for so long the loop was blocked."""
    inflight: int
    tasks: int
    rss: int
    connections: int
    requests: int
    """Since the start."""


class Recycle(Message, frozen=True, kw_only=True, tag="recycle"):
    """To the master: replace this worker, which serves until the master sends ``drain``."""

    reason: str


class LogsReopened(Message, frozen=True, kw_only=True, tag="logs_reopened"):
    """To the master: nothing is written into the old files any more."""


class Stats(Message, frozen=True, kw_only=True, tag="stats"):
    """To the master: the counters of the server, and of the application if it has ``statistics()``."""

    server: dict[str, Any]
    app: dict[str, Any] = {}


class Tree(Message, frozen=True, kw_only=True, tag="tree"):
    """To the master: the live tasks, one line each, children indented."""

    lines: tuple[str, ...]


class Ended(Message, frozen=True, kw_only=True, tag="ended"):
    """To the master, as the last message: the worker ends now."""

    reason: str


MasterMessage = Start | State | Drain | ReopenLogs | StatsQuery | TreeQuery
WorkerMessage = Failed | Ready | Heartbeat | Recycle | LogsReopened | Stats | Tree | Ended

_encoder = msgspec.json.Encoder(enc_hook=str)
_master_decoder: msgspec.json.Decoder[MasterMessage] = msgspec.json.Decoder(MasterMessage)
_worker_decoder: msgspec.json.Decoder[WorkerMessage] = msgspec.json.Decoder(WorkerMessage)


def encode(message: Message) -> bytes:
    """Encode a message as a line with its line end."""
    return _encoder.encode(message) + b"\n"


def decode_master_message(line: bytes) -> MasterMessage:
    """Decode a message of the master.

    Raises:
        msgspec.DecodeError: the line is no such message.
    """
    return _master_decoder.decode(line)


def decode_worker_message(line: bytes) -> WorkerMessage:
    """Decode a message of a worker.

    Raises:
        msgspec.DecodeError: the line is no such message.
    """
    return _worker_decoder.decode(line)
