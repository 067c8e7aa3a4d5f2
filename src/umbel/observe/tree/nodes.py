"""The task tree of a process as plain data, which travels as JSON to the master, to ``umbel ctl`` and to the page.

Times are seconds. Members with their default value are left out of the JSON.
"""

from __future__ import annotations

import msgspec


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of all parts of a tree."""


class Scope(Node, frozen=True, kw_only=True):
    """A cancel scope that a task is in, if it has a deadline, is a shield or is cancelled."""

    left: float | None = None
    """The seconds until its deadline, negative after it; None: it has no deadline."""
    shield: bool = False
    cancelled: bool = False
    reason: str = ""
    """Why it was cancelled, if the code that cancelled it has said so."""


class AttemptNode(Node, frozen=True, kw_only=True):
    """An attempt of a call: one request to one replica."""

    cause: str
    """``first``, ``retry``, ``hedge``, ``redirect`` or ``mirror``."""
    replica: str = ""
    state: str
    """Under way: ``waiting`` (for a connection, or until its request is sent), ``sent`` or ``head`` (the body is
    coming). Ended: ``ended``, or why it failed, such as ``timeout``."""
    status: int | None = None
    age: float | None = None
    """The seconds since its start; of an ended one, how long it took."""


class CallNode(Node, frozen=True, kw_only=True):
    """A call of a composition. A call has no task: callbacks of the socket reader carry it on."""

    name: str
    upstream: str = ""
    state: str
    """``waiting`` (for other calls), ``queued`` (for a place of the upstream), ``running``, ``pause`` (before a retry),
    ``shared`` (it waits for an equal call), or how it ended: ``value``, ``skipped``, ``failed``."""
    why: str = ""
    """Of a call that has ended without a value: the kind of the failure."""
    age: float | None = None
    """The seconds since its start; of an ended one, how long it took; None: it has not begun."""
    items: int = 0
    """Of an ``each``: how many items are under way."""
    attempts: tuple[AttemptNode, ...] = ()
    """The ended attempts, then those under way."""


class RequestNode(Node, frozen=True, kw_only=True):
    """A request that a task answers."""

    id: str
    method: str
    path: str
    route: str = ""
    age: float
    left: float | None = None
    """The seconds until the deadline of the route; None: it has none."""


class TaskNode(Node, frozen=True, kw_only=True):
    """A task, or several sibling tasks of one kind: equal but for their ages, deadlines and requests' ids."""

    id: int
    """Tells the task from others of its process while it lives."""
    name: str
    state: str
    """``running``, ``runnable`` or ``waiting``."""
    waits: str = ""
    """What a waiting task waits for, in words."""
    at: str = ""
    """Where it waits: folder, file and line of the innermost frame outside of trio, such as ``shop/app.py:17``."""
    function: str = ""
    """The function of this frame."""
    age: float | None = None
    """The seconds since a reader has first seen the task; None: not known."""
    older: bool = False
    """Whether the task may be older than ``age``."""
    scopes: tuple[Scope, ...] = ()
    """The cancel scopes that it has entered, the innermost first, without those of its nurseries."""
    request_id: str = ""
    """The request for which it runs, from its logging context."""
    request: RequestNode | None = None
    """The request that it answers itself."""
    calls: tuple[CallNode, ...] = ()
    nurseries: tuple[NurseryNode, ...] = ()
    """Its nurseries, the outermost first."""
    count: int = 1
    """How many tasks this node stands for; this one is the oldest of them that was seen."""
    members: tuple[TaskNode, ...] = ()
    """Some of the others."""


class NurseryNode(Node, frozen=True, kw_only=True):
    """A nursery of a task."""

    scope: Scope | None = None
    """Its cancel scope, if it has a deadline, is a shield or is cancelled."""
    size: int
    """The number of its tasks."""
    tasks: tuple[TaskNode, ...] = ()
    left_out: int = 0
    """The number of its tasks that are left out, because the tree is too large."""


class Blocked(Node, frozen=True, kw_only=True):
    """An event loop that does not run."""

    seconds: float
    at: str = ""
    """The place where it is, such as ``srv/app.py:17 in handler``; empty: not known."""


class ProcessTree(Node, frozen=True, kw_only=True):
    """The task tree of a process."""

    process: str
    """``master``, ``worker 1`` or ``main``."""
    pid: int
    tasks: int = 0
    """The number of living tasks."""
    root: TaskNode | None = None
    """None: there is no tree; ``note`` says why."""
    blocked: Blocked | None = None
    """Set while the event loop is blocked: the tree is read from another thread, or missing."""
    age: float = 0.0
    """The seconds since the tree was read."""
    note: str = ""
    """What a reader of the tree must know, in one sentence."""
