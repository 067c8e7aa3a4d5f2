"""The thread that ends a worker after its master, even while the worker's event loop is blocked.

The kernel closes the master's end of the channel however the master ends, and then keeps reporting ``POLLRDHUP``. The
parent-death signal (prctl) is no alternative: it is lost if the master ends before it is set, and it is sent when the
*thread* that started the process ends.
"""

from __future__ import annotations

import os
import select
import threading
import time

from ..master.exit_status import WORKER_ORPHANED

SLACK_S = 1.0
"""Seconds for an orphan to exit by itself after its drain."""


class OrphanWatch(threading.Thread):
    """A thread that exits the process with ``WORKER_ORPHANED``, ``grace`` + ``SLACK_S`` seconds after the master's end.

    A worker whose event loop runs sees the end of the channel too, and its drain takes at most ``grace``. So the thread
    has to exit the process only if the event loop is blocked, or if the cleanup after the drain takes longer than
    ``SLACK_S``. The exit runs no cleanup (``os._exit``).

    Args:
        channel: the descriptor of the worker's end of the channel.
        grace: the seconds of the worker's drain.
    """

    def __init__(self, channel: int, grace: float) -> None:
        super().__init__(name="umbel-orphan-watch", daemon=True)
        self._poll = select.poll()
        self._poll.register(channel, select.POLLRDHUP)
        self._grace = grace

    def run(self) -> None:
        """Wait for the end of the channel, then for the time of the drain, and exit the process."""
        self._poll.poll()
        time.sleep(self._grace + SLACK_S)
        os._exit(WORKER_ORPHANED)
