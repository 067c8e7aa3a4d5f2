"""The thread that ends a worker whose master has ended, even while the event loop of the worker is blocked.

The kernel closes the master's end of the channel when the master ends, for whatever reason, and ``POLLRDHUP`` stays
reported. The parent-death signal (prctl) would be lost if the master ended before it is set, and it comes when the
*thread* ends that started the process.
"""

from __future__ import annotations

import os
import select
import threading
import time

from ..master.exit_status import WORKER_ORPHANED

SLACK_S = 1.0
"""Seconds between the end of an orphan's drain and the end of the process."""


class OrphanWatch(threading.Thread):
    """Ends the process ``grace`` + ``SLACK_S`` seconds after the master has ended, with ``WORKER_ORPHANED``.

    The event loop reads the end of the channel too, and drains in the meantime: only a blocked process is ended here.

    Args:
        channel: the descriptor of the worker's end of the channel.
        grace: seconds.
    """

    def __init__(self, channel: int, grace: float) -> None:
        super().__init__(name="umbel-orphan-watch", daemon=True)
        self._poll = select.poll()
        self._poll.register(channel, select.POLLRDHUP)
        self._grace = grace

    def run(self) -> None:
        """Wait for the end of the channel, then for the time of the drain, and end the process."""
        self._poll.poll()
        time.sleep(self._grace + SLACK_S)
        os._exit(WORKER_ORPHANED)
