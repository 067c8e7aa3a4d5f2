"""Start of a worker process: a new interpreter by exec, with the listening sockets and one end of a socketpair.

The child inherits these descriptors and no others, so that it keeps nothing else of the master open.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import trio

MODULE = "umbel.supervisor.worker.worker"
_NOT_FOR_WORKERS = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}
)
"""Variables by which systemd addresses the master alone."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A process that has just been started, with the master's ends of the channel and of the stderr pipe."""

    process: trio.Process
    channel: socket.socket
    stderr: trio.abc.ReceiveStream


async def spawn(descriptors: Iterable[int], title: str) -> Spawned:
    """Start a worker, which then waits for ``start`` on its channel.

    ``title`` is on its command line until the worker sets a process title.

    Raises:
        OSError: the process cannot be started.
    """
    ours, theirs = socket.socketpair()
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", MODULE, str(theirs.fileno()), title],
            env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_WORKERS},
            pass_fds=(theirs.fileno(), *descriptors),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    assert process.stderr is not None  # A pipe, as asked for.
    return Spawned(process, ours, process.stderr)
