"""Reaps processes that nobody here has started: as PID 1 of a container the master inherits every orphan.

Woken by SIGCHLD through ``signals.py``. It never takes the end of a worker away from the worker's own task.
"""

from __future__ import annotations

import os
from collections.abc import Collection

_EACH_TIME_MAX = 1000


def reap_strangers(ours: Collection[int]) -> int:
    """Reap what has ended and is not among ``ours``; gives how many. Never waits.

    The kernel shows one ended child at a time; behind one of ours the others wait for its own task to take it, and for
    the next call.
    """
    for count in range(_EACH_TIME_MAX):
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return count
        if found is None or found.si_pid in ours:
            return count
        os.waitpid(found.si_pid, os.WNOHANG)
    return _EACH_TIME_MAX
