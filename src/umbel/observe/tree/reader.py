"""Reads the task tree of a trio run: walks it in slices, folds siblings of one kind, and bounds what it returns.

Theory
------
**Cost.** Everything is read from trio's own objects when somebody asks, so a program pays nothing before. No instrument
is installed: each of its functions would be called by every step of every task. One task costs some 10 µs to read, so
a tree of 10,000 tasks takes 0.1 s. It is read in slices of ``SLICE_S``, with a checkpoint between them
(``read_in_slices``). Tasks begin and end between two slices, so the tree is not of one moment: a task that has ended is
left out, and each node is right for the moment at which its task was read.

**Ages.** trio does not say when a task was started. The reader remembers when it has first seen each task (in a weak
dictionary). If it had looked shortly before, that is the age; otherwise the task may be older (``TaskNode.older``). The
ages of requests and calls are exact.

**Requests and calls.** Code that knows more about a coroutine gives a ``FrameReader`` for its code object. The walk
looks at the frames of each task anyway, for its place in the code, and asks the reader of a frame's code for what the
frame holds. So no request pays for being visible. (In CPython before 3.13 a look at ``f_locals`` keeps the values of
the frame's variables until the next look or the end of the frame.)

**Folding.** Siblings are of one kind if they have equal keys: name, state, place, kinds of requests, calls, children.
Of each kind ``MEMBERS_MAX`` + 1 are described, the others are counted. So memory and time for 10,000 equal tasks are
those of looking at each.

**Bounds.** ``NODES_MAX`` nodes and ``DEPTH_MAX`` levels; what is beyond is counted (``NurseryNode.left_out``).

**Threads.** A walk only reads, but the trio thread may change sets under it: then a walk from another thread raises
RuntimeError, and may be repeated. Such a walk must not remember tasks (``remembers``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Hashable, Mapping
from pathlib import PurePath
from time import perf_counter
from types import CodeType, FrameType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import trio
from msgspec.structs import replace

from ...logs.context import fields_in
from .nodes import CallNode, NurseryNode, RequestNode, Scope, TaskNode
from .trio_internals import cancel_reason, entered_scopes, is_cancelled, is_runnable
from .waits import SLEEP, has_words, in_words, is_machinery

SLICE_S = 0.002
"""Seconds after which a walk lets other tasks run."""
NODES_MAX = 600
"""The bound on tasks that are described."""
DEPTH_MAX = 50
"""The bound on levels of tasks below the root."""
MEMBERS_MAX = 9
"""The bound on further members of a fold that are described."""
_FOLDED_MIN = 3
"""Siblings of one kind from which on they are folded."""
_SCOPES_MAX = 4
_FRESH_S = 3.0
"""A task that was first seen so many seconds after the walk before has the age since then."""
_TASKS_PER_LOOK = 16
"""Tasks between two looks at the clock."""
_CODES_MAX = 10_000

FrameReader = Callable[[FrameType, float], "RequestNode | tuple[CallNode, ...] | None"]
"""Returns what a frame holds at a time (``trio.current_time()``): a request, calls, or nothing. Must not raise for a
frame whose variables are not set yet."""
Frames = Mapping[CodeType, FrameReader]
"""The readers of frames by code object."""
Walk = Generator[None, None, TaskNode]
"""A walk through a tree: yields after each task, and returns the node of the root."""


class _Code(NamedTuple):
    """What is known of a code object."""

    is_machinery: bool
    qualified_name: str
    file: str


class _Look(NamedTuple):
    """What the frames of a task say."""

    state: str
    waits: str
    at: str
    function: str
    request: RequestNode | None
    calls: tuple[CallNode, ...]

    def key(self, name: str) -> Hashable:
        """Equal for tasks of one kind, as far as the task itself decides it."""
        request = self.request
        kind = None if request is None else (request.method, request.route)
        calls = tuple((call.name, call.state, len(call.attempts)) for call in self.calls)
        return name, self.state, self.waits, self.at, kind, calls


class _Fold:
    """Siblings of one kind."""

    __slots__ = ("count", "members")

    def __init__(self) -> None:
        self.count = 0
        self.members: list[TaskNode] = []

    def nodes(self) -> list[TaskNode]:
        """The nodes that stand for them."""
        if self.count < _FOLDED_MIN:
            return self.members
        first, *others = sorted(self.members, key=lambda node: -(node.age or 0.0))
        return [replace(first, count=self.count, members=tuple(others))]


class _OpenNursery:
    """A nursery whose tasks are being read."""

    __slots__ = ("folds", "nursery", "size", "todo")

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.todo = list(nursery.child_tasks)
        self.size = len(self.todo)
        self.folds: dict[Hashable, _Fold] = {}


class _OpenTask:
    """A task whose nurseries are being read."""

    __slots__ = ("done", "keys", "look", "nursery", "task", "todo")

    def __init__(self, task: trio.lowlevel.Task, look: _Look, nurseries: list[trio.Nursery]) -> None:
        self.task = task
        self.look = look
        self.todo = nurseries[::-1]
        self.nursery: _OpenNursery | None = None
        self.done: list[NurseryNode] = []
        self.keys: list[Hashable] = []
        """The kinds of the tasks in ``done``."""


class TreeReader:
    """Reads trees of one trio run, and remembers its tasks weakly.

    Args:
        frames: the readers of frames by code object.
    """

    def __init__(self, frames: Frames | None = None) -> None:
        self.frames: Frames = {} if frames is None else frames
        self._codes: dict[CodeType, _Code] = {}
        self._seen: WeakKeyDictionary[trio.lowlevel.Task, tuple[float, bool]] = WeakKeyDictionary()
        """When each task was first seen, and whether it may be older."""
        self._walked_at = -math.inf

    async def read_in_slices(self) -> TaskNode:
        """Read the tree of the present run. A slice holds the event loop for little more than ``SLICE_S``."""
        root = trio.lowlevel.current_root_task()
        assert root is not None
        walk = self.walk(root, trio.current_time())
        while True:
            until = perf_counter() + SLICE_S
            try:
                while perf_counter() < until:
                    for _ in range(_TASKS_PER_LOOK):
                        next(walk)
            except StopIteration as end:
                node: TaskNode = end.value
                return node
            await trio.lowlevel.checkpoint()

    def read(self, root: trio.lowlevel.Task, now: float, *, remembers: bool = True) -> TaskNode:
        """Read the tree below ``root`` in one step; the arguments are those of ``walk``.

        Raises:
            RuntimeError: the tree changed meanwhile, which can happen if ``root`` runs in another thread.
        """
        walk = self.walk(root, now, remembers=remembers)
        while True:
            try:
                next(walk)
            except StopIteration as end:
                node: TaskNode = end.value
                return node

    def walk(self, root: trio.lowlevel.Task, now: float, *, remembers: bool = True) -> Walk:
        """Walk through the tree below ``root``.

        Args:
            now: ``trio.current_time()`` of its run.
            remembers: whether tasks that were not seen before are remembered.
        """
        walked_at = self._walked_at if remembers else math.inf
        stack = [_OpenTask(root, self._look(root, now), root.child_nurseries)]
        while True:
            top = stack[-1]
            nursery = top.nursery
            if nursery is None and top.todo:
                self._open_nursery(top, len(stack), now)
            elif nursery is None:
                stack.pop()
                if not stack:
                    break
                self._close_task(stack[-1], top, now, walked_at)
                yield
            elif nursery.todo:
                task = nursery.todo.pop()
                if getattr(task.coro, "cr_frame", task) is not None:  # Otherwise the task has ended meanwhile.
                    stack.append(_OpenTask(task, self._look(task, now), task.child_nurseries))
            else:
                top.done.append(_nursery_node(nursery, now))
                top.keys.append(tuple(sorted(map(hash, nursery.folds))))
                top.nursery = None
        if remembers:
            self._walked_at = now
        node = self._task_node(top, now, walked_at)
        return _pruned(node, [NODES_MAX])

    def _open_nursery(self, top: _OpenTask, depth: int, now: float) -> None:
        nursery = top.todo.pop()
        if depth <= DEPTH_MAX:
            top.nursery = _OpenNursery(nursery)
            return
        size = len(nursery.child_tasks)
        top.done.append(NurseryNode(scope=_scope(nursery.cancel_scope, now), size=size, left_out=size))

    def _close_task(self, parent: _OpenTask, closed: _OpenTask, now: float, walked_at: float) -> None:
        """Add a task whose children are read to its fold in the nursery of ``parent``."""
        nursery = parent.nursery
        assert nursery is not None
        key = closed.look.key(closed.task.name), tuple(closed.keys)
        fold = nursery.folds.get(key)
        if fold is None:
            fold = nursery.folds[key] = _Fold()
        fold.count += 1
        if len(fold.members) <= MEMBERS_MAX:
            fold.members.append(self._task_node(closed, now, walked_at))
        elif walked_at < math.inf:
            self._age(closed.task, now, walked_at)  # Remember it.

    def _task_node(self, opened: _OpenTask, now: float, walked_at: float) -> TaskNode:
        task, look = opened.task, opened.look
        age, older = self._age(task, now, walked_at)
        nurseries = {nursery.cancel_scope for nursery in task.child_nurseries}
        # The innermost scope of a task that sleeps is that of ``trio.sleep``, whose deadline is the end of the sleep.
        entered = list(entered_scopes(task))[look.waits == SLEEP :]
        scopes = [found for each in entered if each not in nurseries and (found := _scope(each, now))]
        return TaskNode(
            id=id(task),
            name=task.name,
            state=look.state,
            waits=look.waits,
            at=look.at,
            function=look.function,
            age=age,
            older=older,
            scopes=tuple(scopes[:_SCOPES_MAX]),
            request_id=str(fields_in(task.context).get("request_id", "")),
            request=look.request,
            calls=look.calls,
            nurseries=tuple(opened.done),
        )

    def _age(self, task: trio.lowlevel.Task, now: float, walked_at: float) -> tuple[float | None, bool]:
        seen = self._seen.get(task)
        if seen is None:
            if walked_at == math.inf:
                return None, False
            seen = self._seen[task] = now, now - walked_at > _FRESH_S
        return round(max(0.0, now - seen[0]), 3), seen[1]

    def _look(self, task: trio.lowlevel.Task, now: float) -> _Look:
        request: RequestNode | None = None
        calls: tuple[CallNode, ...] = ()
        at: _Code | None = None
        line, waits = 0, ""
        for frame, number in task.iter_await_frames():
            code = frame.f_code
            known = self._codes.get(code) or self._note(frame)
            if (reader := self.frames.get(code)) is not None:
                held = reader(frame, now)
                if isinstance(held, RequestNode):
                    request = held
                elif held is not None:
                    calls = held
            if not known.is_machinery:
                at, line, waits = known, number, ""
            elif not waits or (not has_words(waits) and has_words(known.qualified_name)):
                # The outer function may only be the way to it, such as ``async with lock``.
                waits = known.qualified_name
        if getattr(task.coro, "cr_running", False):
            state = "running"
        elif is_runnable(task):
            state = "runnable"
        else:
            state = "waiting"
        return _Look(
            state,
            in_words(waits) if state == "waiting" and waits else "a callback" if state == "waiting" else "",
            "" if at is None else f"{at.file}:{line}",
            "" if at is None else at.qualified_name,
            request,
            calls,
        )

    def _note(self, frame: FrameType) -> _Code:
        code = frame.f_code
        module: Any = frame.f_globals.get("__name__", "")
        file = "/".join(PurePath(code.co_filename).parts[-2:])
        known = _Code(is_machinery(str(module)), code.co_qualname, file)
        if len(self._codes) >= _CODES_MAX:
            self._codes.clear()
        self._codes[code] = known
        return known


def _nursery_node(opened: _OpenNursery, now: float) -> NurseryNode:
    tasks = [node for fold in opened.folds.values() for node in fold.nodes()]
    tasks.sort(key=lambda node: (node.name, node.at, node.id))
    return NurseryNode(scope=_scope(opened.nursery.cancel_scope, now), size=opened.size, tasks=tuple(tasks))


def _scope(scope: trio.CancelScope, now: float) -> Scope | None:
    """The node of a scope that an operator wants to see; None for one without deadline, shield and cancel."""
    deadline, shield, cancelled = scope.deadline, scope.shield, is_cancelled(scope)
    if deadline == math.inf and not shield and not cancelled:
        return None
    left = None if math.isinf(deadline) else round(deadline - now, 3)
    return Scope(left=left, shield=shield, cancelled=cancelled, reason=cancel_reason(scope) if cancelled else "")


def _pruned(node: TaskNode, budget: list[int]) -> TaskNode:
    """Return the node with at most ``budget[0]`` tasks below it, and reduce the budget by their number."""
    if not node.nurseries and not node.members:
        return node
    members = node.members[: max(0, budget[0])]
    budget[0] -= len(members)
    members = tuple(_pruned(member, budget) for member in members)
    nurseries = []
    for nursery in node.nurseries:
        kept: list[TaskNode] = []
        left_out = nursery.left_out
        for task in nursery.tasks:
            if budget[0] > 0:
                budget[0] -= 1
                kept.append(_pruned(task, budget))
            else:
                left_out += task.count
        nurseries.append(NurseryNode(scope=nursery.scope, size=nursery.size, tasks=tuple(kept), left_out=left_out))
    return replace(node, nurseries=tuple(nurseries), members=members)
