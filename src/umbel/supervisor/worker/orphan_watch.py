"""A thread of the worker that ends an orphaned process, even while the worker's loop is blocked.

The kernel closes the master's end of the channel when the master ends, whatever ends it. So no notification can be
missed, as the parent-death signal (prctl) can, which is also tied to the thread that started the process.
"""

from __future__ import annotations

import os
import select
import threading
import time

from ..master.exit_status import WORKER_ORPHANED

SLACK_S = 1.0
"""Between the end of an orphan's drain and the end of the process."""


class OrphanWatch(threading.Thread):
    """Ends the process ``grace`` + ``SLACK_S`` seconds after the master has ended, with ``WORKER_ORPHANED``.

    The worker's loop sees the end of the channel too, and drains meanwhile; only a blocked one is still there then.

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
