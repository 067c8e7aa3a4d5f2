"""A counter of the turns of trio's scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Turns(trio.abc.Instrument):
    """``count`` is the number of turns: how often the scheduler has polled for I/O."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@contextmanager
def counting_turns() -> Iterator[Turns]:
    """Count the turns of the scheduler within the block."""
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        yield turns
    finally:
        trio.lowlevel.remove_instrument(turns)
