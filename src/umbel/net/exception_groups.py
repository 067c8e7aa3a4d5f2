"""Exception groups, taken apart without recursion: a group may be thousands deep, and Python's stack is not."""

from __future__ import annotations

from collections.abc import Iterator


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions within ``error`` that are no groups, in order; ``error`` itself if it is no group."""
    waiting = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseExceptionGroup):
            waiting.extend(reversed(part.exceptions))
        else:
            yield part
