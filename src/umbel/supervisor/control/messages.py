"""The messages between master and worker: one JSON object per line, such as ``{"is": "ready", ...}``. Pure.

A line that is no message, or that does not fit the type of its message, is an error. Messages need not be compatible
between versions of Umbel, since a worker is a new interpreter of the same installation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...logs.records.level import LevelName
from ...observe.figures import ProcessFigures
from ...observe.kept_requests import Listing
from ...observe.lints.lint import Lint
from ...observe.tree.nodes import ProcessTree
from ...server.limits.server_limits import Limits

LINE_BYTES_MAX = 16 * 2**20
"""The bound on a line; a longer one ends the channel."""
TEXT_CHARS_MAX = 16 * 1024
"""The bound on a reason and on a traceback. The end of the text is kept, which names the cause."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", omit_defaults=True):
    """The base of all messages."""


class Query(Message, frozen=True, kw_only=True):
    """The base of the messages to the worker that ask for an answer."""

    query: int = 0
    """The number of the query, which the answer repeats."""


class Answer(Message, frozen=True, kw_only=True):
    """The base of the worker's answers."""

    query: int = 0
    """The number of the query that is answered."""


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """To the worker, as the first message: the application, the settings and the sockets."""

    slot: int
    """The number of the slot, from 1 on; 0 for a trial start."""
    generation: int
    """How many times the master had read the configuration when it started this worker."""
    app: str | None
    """``module:app``; None for the gateway of the configuration."""
    config: str | None
    """The path of umbel.toml; None if there is none."""
    routes: int = 0
    """The number of routes that the master has found in umbel.toml. A worker that finds far fewer refuses the file."""
    server: dict[str, Any] = {}
    """Hypercorn's settings, as the master has read them."""
    limits: Limits | None = None
    """The server's limits, for an application without limits of its own."""
    logs: dict[str, Any] = {}
    """The section ``[logs]``, for an application without a recorder of its own."""
    logs_required: bool = False
    """Whether ``[logs]`` is configured, so that its files must be writable."""
    secure: tuple[int, ...] = ()
    """The descriptors of the listening sockets with TLS."""
    insecure: tuple[int, ...] = ()
    """The descriptors of the listening sockets without TLS."""
    heartbeat_every: float
    """The seconds between two heartbeats."""
    orphan_grace: float
    """The seconds of the drain after the master has ended."""
    max_rss: int | None = None
    """The resident memory in bytes above which the worker sends ``recycle``."""
    max_lifetime: float | None = None
    """The age in seconds above which the worker sends ``recycle``."""
    shows_requests: bool = False
    """Whether the worker writes a line for each request to stderr: the master's stderr is a terminal."""
    may_lack_keys: tuple[str, ...] | None = None
    """The keys of ``[auth]`` without which the worker may get ready, since the one that it replaces has not got them
    either; None: without any."""
    needs_key_files: bool = True
    """Whether the worker fails if a file of API keys cannot be used (``config/loading/file_rules.py``)."""
    log_level: LevelName | None = None
    """The level of the log ``app``; None: as configured."""
    check_only: bool = False
    """Whether the worker only loads the application and runs its lifespan."""


class State(Message, frozen=True, kw_only=True, tag="state"):
    """To the worker: the number of ready workers, and whether the master is degraded."""

    ready: int
    degraded: bool


class ServeWithoutKeys(Message, frozen=True, kw_only=True, tag="serve_without_keys"):
    """To the worker: it may get ready without any keys, because the worker that it was to replace has ended."""


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """To the worker: drain and end. All times are seconds."""

    grace: float
    """The time that requests in flight have after ``delay``; then they are cancelled."""
    delay: float = 0.0
    """The time for which connections are still accepted at first."""
    quick: bool = False
    """Whether to end within ``QUICK_S``; a worker that drains already cancels its requests at once."""


class SetLogLevel(Message, frozen=True, kw_only=True, tag="set_log_level"):
    """To the worker: set the level of the log ``app``."""

    level: LevelName


class LimitTats(Message, frozen=True, kw_only=True, tag="limit_tats"):
    """To the worker: common TATs of a limit (``limits/sharing.py``), as times of CLOCK_MONOTONIC."""

    limit: str
    """The identity of the limit."""
    counted: int
    tats: tuple[tuple[str | None, float], ...]
    """The keys as ``wire_key`` makes them, with their TATs."""


class ReopenLogs(Query, frozen=True, kw_only=True, tag="reopen_logs"):
    """To the worker: reopen the log files. The answer is ``logs_reopened``."""


class StatsQuery(Query, frozen=True, kw_only=True, tag="stats_query"):
    """To the worker: send the counters. The answer is ``stats``."""


class TreeQuery(Query, frozen=True, kw_only=True, tag="tree_query"):
    """To the worker: send the task tree. The answer is ``tree``."""


class FiguresQuery(Query, frozen=True, kw_only=True, tag="figures_query"):
    """To the worker: send the figures for the metrics. The answer is ``figures``."""


class LintsQuery(Query, frozen=True, kw_only=True, tag="lints_query"):
    """To the worker: look for lints, and send them. The answer is ``lints``."""


class SlowQuery(Query, frozen=True, kw_only=True, tag="slow_query"):
    """To the worker: send the list of kept requests. The answer is ``slow``."""


class SlowRequestQuery(Query, frozen=True, kw_only=True, tag="slow_request_query"):
    """To the worker: send the timeline of a kept request. The answer is ``slow_request``."""

    request: str
    """The id of the request, as the list has it."""


class UpstreamsQuery(Query, frozen=True, kw_only=True, tag="upstreams_query"):
    """To the worker: send the snapshots of the upstreams. The answer is ``upstreams``."""


class Failed(Message, frozen=True, kw_only=True, tag="failed"):
    """To the master: the worker cannot get ready, and why."""

    reason: str
    traceback: str = ""
    lacks_keys: bool = False
    """Whether the reason is that keys have not come (``Start.may_lack_keys``)."""


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """To the master: the lifespan has started, and connections are accepted."""

    limits: tuple[str, ...] = ()
    """The identities of the limits that the worker shares with others."""


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """To the master, every ``heartbeat_every`` seconds from ``ready`` until the end: the event loop is not blocked."""

    lag_ms: float
    """The lateness of this heartbeat in milliseconds: the time for which the event loop was blocked."""
    inflight: int
    """The number of requests in flight."""
    tasks: int
    """The number of living trio tasks."""
    rss: int
    """The resident memory in bytes."""
    connections: int
    """The number of open connections."""
    requests: int
    """The number of requests since the worker's start."""
    streams: int = 0
    """The number of streams; they are not in flight."""
    failing_logs: tuple[str, ...] = ()
    """The logs whose latest write has failed or hangs."""
    missing_keys: tuple[str, ...] = ()
    """The keys that the application has not got yet, so that its ``/readyz`` is 503."""


class LoopBlocked(Message, frozen=True, kw_only=True, tag="loop_blocked"):
    """To the master, from a thread, while the worker's event loop is blocked. It is no sign of life."""

    seconds: float
    """For how long at least."""
    at: str
    """Where, such as ``shop/app.py:17 in parse``."""


class Recycle(Message, frozen=True, kw_only=True, tag="recycle"):
    """To the master: replace this worker. It serves until the master sends ``drain``."""

    reason: str


class LimitSpent(Message, frozen=True, kw_only=True, tag="limit_spent"):
    """To the master: what the worker has spent of a limit (``limits/sharing.py``)."""

    limit: str
    """The identity of the limit: what is spent of another one does not count."""
    number: int
    spent: tuple[tuple[str | None, float, float], ...]
    """The keys as ``wire_key`` makes them, with the spent seconds, and the worker's TAT as a time of CLOCK_MONOTONIC.
    """
    keys_max: int
    width: float
    sync: float
    """Seconds after which all workers are to know of it."""


class LogsReopened(Answer, frozen=True, kw_only=True, tag="logs_reopened"):
    """To the master: the log files are reopened, and nothing more is written to the old ones."""


class Stats(Answer, frozen=True, kw_only=True, tag="stats"):
    """To the master: the counters of the server, and of the application if it has ``statistics()``."""

    server: dict[str, Any]
    app: dict[str, Any] = {}
    queues: dict[str, int] = {}
    """How many records wait in the queue of each log."""


class Tree(Answer, frozen=True, kw_only=True, tag="tree"):
    """To the master: the task tree."""

    tree: ProcessTree


class Lints(Answer, frozen=True, kw_only=True, tag="lints"):
    """To the master: the lints."""

    lints: tuple[Lint, ...]


class Slow(Answer, frozen=True, kw_only=True, tag="slow"):
    """To the master: the list of kept requests."""

    listing: Listing


class SlowRequest(Answer, frozen=True, kw_only=True, tag="slow_request"):
    """To the master: the timeline of a kept request; null if it is not kept (any more)."""

    timeline: msgspec.Raw


class Upstreams(Answer, frozen=True, kw_only=True, tag="upstreams"):
    """To the master: the snapshots of the upstreams, by name (``ClientStatistics`` as dictionaries)."""

    upstreams: Mapping[str, Mapping[str, Any]]


class Figures(Answer, frozen=True, kw_only=True, tag="figures"):
    """To the master: the figures for the metrics. Also without a query, with the number 0, once a second if they have
    changed, and at the end."""

    figures: ProcessFigures


class Ended(Message, frozen=True, kw_only=True, tag="ended"):
    """To the master, as the last message: the worker exits now."""

    reason: str


AnyQuery = (
    ReopenLogs | StatsQuery | TreeQuery | LintsQuery | SlowQuery | SlowRequestQuery | FiguresQuery | UpstreamsQuery
)
MasterMessage = Start | State | ServeWithoutKeys | Drain | SetLogLevel | LimitTats | AnyQuery
WorkerMessage = (
    Failed
    | Ready
    | Heartbeat
    | LoopBlocked
    | Recycle
    | LimitSpent
    | LogsReopened
    | Stats
    | Tree
    | Lints
    | Slow
    | SlowRequest
    | Figures
    | Upstreams
    | Ended
)

_encoder = msgspec.json.Encoder(enc_hook=str)
_master_decoder: msgspec.json.Decoder[MasterMessage] = msgspec.json.Decoder(MasterMessage)
_worker_decoder: msgspec.json.Decoder[WorkerMessage] = msgspec.json.Decoder(WorkerMessage)


def encode(message: Message) -> bytes:
    """Encode a message as a line with its line end."""
    return _encoder.encode(message) + b"\n"


def decode_master_message(line: bytes) -> MasterMessage:
    """Decode a line of the master.

    Raises:
        msgspec.DecodeError: the line is not a message to workers.
    """
    return _master_decoder.decode(line)


def decode_worker_message(line: bytes) -> WorkerMessage:
    """Decode a line of a worker.

    Raises:
        msgspec.DecodeError: the line is not a message to the master.
    """
    return _worker_decoder.decode(line)
