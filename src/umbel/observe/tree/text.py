"""The task tree as lines of text, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from .nodes import AttemptNode, CallNode, NurseryNode, ProcessTree, Scope, TaskNode


def tree_lines(tree: ProcessTree) -> Iterator[str]:
    """Yield the lines of a tree: the process, then one line for each task, nursery and call, children indented."""
    yield f"{tree.process} ({tree.pid})" + (f", {tree.tasks} tasks" if tree.tasks else "")
    if tree.blocked is not None:
        place = f", at {tree.blocked.at}" if tree.blocked.at else ""
        yield f"  the event loop has been blocked for {tree.blocked.seconds:.1f} s{place}"
    if tree.age:
        yield f"  read {duration(tree.age)} ago, since reading so many tasks is expensive"
    if tree.note:
        yield f"  {tree.note}"
    if tree.root is not None:
        yield from _task(tree.root, 1)


def duration(seconds: float) -> str:
    """Format seconds with two or three digits, such as ``4.2 s``; longer ones in their two largest units."""
    size = abs(seconds)
    if size < 1:
        return f"{1000 * seconds:.0f} ms"
    if size < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def task_words(task: TaskNode) -> str:
    """A task in one line: name, number, state, place, age, request, scopes."""
    parts = [task.name + (f" x {task.count}" if task.count > 1 else "")]
    if request := task.request:
        left = "" if request.left is None else f", {duration(request.left)} left"
        parts.append(f"{request.method} {request.path} {request.id} for {duration(request.age)}{left}")
    elif task.request_id:
        parts.append(f"request {task.request_id}")
    parts.append(f"waits for {task.waits}" if task.waits else task.state)
    parts += [f"[{task.at}]"] if task.at else []
    if task.age is not None:
        parts.append(f"{'>= ' if task.older else ''}{duration(task.age)}")
    parts += map(scope_words, task.scopes)
    return "  ".join(parts)


def scope_words(scope: Scope) -> str:
    """A scope in some words, in parentheses."""
    words = []
    if scope.cancelled:
        words.append(f"cancelled: {scope.reason}")
    elif scope.left is not None:
        words.append(f"deadline in {duration(scope.left)}")
    if scope.shield:
        words.append("shield")
    return f"({', '.join(words)})"


def call_words(call: CallNode) -> str:
    """A call in one line: name, upstream, state, age, items, attempts."""
    parts = [f"call {call.name}" + (f" ({call.upstream})" if call.upstream else "")]
    parts.append(call.state + (f": {call.why}" if call.why else ""))
    parts += [duration(call.age)] if call.age is not None else []
    parts += [f"{call.items} items"] if call.items else []
    parts += map(_attempt_words, call.attempts)
    return "  ".join(parts)


def _attempt_words(attempt: AttemptNode) -> str:
    result = attempt.state if attempt.status is None else f"{attempt.state} {attempt.status}"
    age = "" if attempt.age is None else f" {duration(attempt.age)}"
    return f"[{attempt.cause} {attempt.replica} {result}{age}]"


def _task(task: TaskNode, depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{task_words(task)}"
    for call in task.calls:
        yield f"{'  ' * (depth + 1)}{call_words(call)}"
    for nursery in task.nurseries:
        yield from _nursery(nursery, depth + 1, alone=len(task.nurseries) == 1)


def _nursery(nursery: NurseryNode, depth: int, *, alone: bool) -> Iterator[str]:
    if nursery.scope is not None or not alone:
        scope = "" if nursery.scope is None else f"  {scope_words(nursery.scope)}"
        yield f"{'  ' * depth}nursery of {nursery.size}{scope}"
        depth += 1
    for task in nursery.tasks:
        yield from _task(task, depth)
    if nursery.left_out:
        yield f"{'  ' * depth}... and {nursery.left_out} more"
