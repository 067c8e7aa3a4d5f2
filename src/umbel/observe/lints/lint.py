"""A lint as plain data, and the kinds of lints with what to do about each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of lint."""

    name: str
    title: str
    found: str
    """When it is found, in one sentence."""
    advice: str
    """What it means and what to do about it, in one or two sentences."""


LONG_STEP = Kind(
    "long-step",
    "A step held the event loop",
    "A task ran for more than 10 ms without giving way to others.",
    "While this code runs, no other task does. Move it to a thread (trio.to_thread.run_sync), or let other tasks run "
    "in between (trio.lowlevel.checkpoint).",
)
LAG = Kind(
    "lag",
    "The event loop is late",
    "A turn of the event loop took more than 50 ms, and no single step explains it.",
    "Tasks that could run waited for their turn, because many others ran before them. Each of these was short, so "
    "there is too much work for one process: start more workers, or bound the number of tasks.",
)
GROWING_NURSERY = Kind(
    "growing-nursery",
    "A nursery only grows",
    "For 20 s a nursery got at least 20 tasks, and was never seen with fewer than before.",
    "Tasks are started faster than they end, so memory and latency will grow. Bound them: with a "
    "trio.CapacityLimiter, a channel with a fixed number of workers, or a deadline for each task.",
)
OPEN_SHIELD = Kind(
    "open-shield",
    "A shield has no deadline",
    "A task was for more than 1 s within a shielded scope that has no deadline.",
    "No cancel reaches the task within the shield: if what it waits for never comes, neither a deadline nor a shutdown "
    "ends it. Give the scope a deadline: trio.move_on_after(seconds, shield=True).",
)
FULL_QUEUE = Kind(
    "full-queue",
    "A queue is full",
    "A channel was full for more than 1 s while senders waited, or a log lost records.",
    "Senders wait for room, or records are lost: the receiver is slower than its senders. Make it faster, start more "
    "receivers, or send less. A longer queue only delays this.",
)
BUSY_LIMITER = Kind(
    "busy-limiter",
    "A limiter has no free place",
    "For more than 1 s tasks waited for a CapacityLimiter, such as that of trio's threads.",
    "Tasks wait although they could run. If the places are held for long, shorten what holds them or bound it with a "
    "deadline; give work that may block for long a limiter of its own.",
)
KINDS = (LONG_STEP, LAG, GROWING_NURSERY, OPEN_SHIELD, FULL_QUEUE, BUSY_LIMITER)
"""All kinds."""


class Lint(msgspec.Struct, frozen=True, kw_only=True):
    """A lint of a process: all findings of one kind at one place. Times are seconds before now."""

    process: str
    """``master``, ``worker 1`` or ``main``, as in the task tree."""
    name: str
    """The name of the kind."""
    title: str
    advice: str
    where: str
    """The place in the code, such as ``shop/app.py:17 in parse``, or the name of what it is about."""
    detail: str
    """The worst finding, in words."""
    count: int
    """How often it was found."""
    first: float
    last: float
    ongoing: bool = False
    """Whether it lasts at this moment."""


def lint_of(kind: Kind, process: str, where: str, detail: str, *, ongoing: bool) -> Lint:
    """A lint that was found once, now."""
    return Lint(
        process=process, name=kind.name, title=kind.title, advice=kind.advice, where=where, detail=detail, count=1,
        first=0.0, last=0.0, ongoing=ongoing,
    )  # fmt: skip


def as_topic(lints: Sequence[Lint]) -> dict[str, Any]:
    """The lints as a page gets them, with all kinds and their explanations."""
    kinds = [{"name": kind.name, "title": kind.title, "found": kind.found, "advice": kind.advice} for kind in KINDS]
    return {"lints": lints, "kinds": kinds}
