"""Reaping of child processes that the master has not started: as PID 1 of a container it inherits every orphan.

The exit status of a worker is left to the task of that worker.
"""

from __future__ import annotations

import os
from collections.abc import Collection

_EACH_TIME_MAX = 1000


def reap_unknown_children(ours: Collection[int]) -> int:
    """Reap the ended children that are not among ``ours``; return how many. Never waits.

    ``waitid`` shows one ended child at a time. If that is one of ours, its task must reap it first; the children behind
    it are reaped by the next call.
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
