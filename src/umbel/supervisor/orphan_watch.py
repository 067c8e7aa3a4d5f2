"""A thread of the worker that sees the master die, whatever the worker's loop is doing.

Started before anything of the application runs. The kernel closes the master's end of the channel when the master is
gone, however it went; no signal of the parent's death can be missed or come from the wrong thread.
"""

from __future__ import annotations

import os
import select
import threading
import time

from .exit_status import WORKER_ORPHANED

SLACK_S = 1.0
"""Between the end of an orphan's drain and the end of the process."""


class OrphanWatch(threading.Thread):
    """Ends the process ``grace`` seconds and a little after the master has gone, unless it has ended by then.

    The worker's loop sees the same and drains meanwhile; if it is blocked, this is what ends it.
    """

    def __init__(self, channel: int, grace: float) -> None:
        super().__init__(name="umbel-orphan-watch", daemon=True)
        self._poll = select.poll()
        self._poll.register(channel, select.POLLRDHUP)
        self._grace = grace

    def run(self) -> None:
        """Wait for the end of the channel, then for the end of the grace."""
        self._poll.poll()
        time.sleep(self._grace + SLACK_S)
        os._exit(WORKER_ORPHANED)
