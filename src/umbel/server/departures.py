"""Tells at once when a client has left, without reading from its connection.

One task for all connections of a server, run by ``service.py``: the kernel is asked for the end of the stream alone
(``EPOLLRDHUP``, edge-triggered), which it sees behind any bytes that wait to be read. So nothing is read ahead, an
upload has back-pressure, and a connection needs no second task. Without epoll it tells nothing.
"""

from __future__ import annotations

import select
from collections.abc import Callable

import trio

_EVENTS_MAX = 256
"""Told in one go, so that a crowd that leaves does not hold up those who stay."""


class Departures:
    """Calls back when the peer of a watched socket has sent its last byte, or has reset the connection."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._calls: dict[int, Callable[[bool], None]] = {}

    def watch(self, fd: int, left: Callable[[bool], None]) -> None:
        """Call ``left(reset)`` at each of the two, until ``forget``; ``reset`` is False for a mere end of sending."""
        if self._epoll is not None and fd not in self._calls:
            self._calls[fd] = left
            self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLET)

    def forget(self, fd: int) -> None:
        """To be called before ``fd`` is closed."""
        if self._calls.pop(fd, None) is not None and self._epoll is not None:
            self._epoll.unregister(fd)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        if not hasattr(select, "epoll"):
            task_status.started()
            return
        with select.epoll() as self._epoll:
            task_status.started()
            try:
                while True:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                    for fd, flags in self._epoll.poll(0, _EVENTS_MAX):
                        self._calls[fd](bool(flags & (select.EPOLLHUP | select.EPOLLERR)))
            finally:
                trio.lowlevel.notify_closing(self._epoll.fileno())
                self._epoll = None
                self._calls.clear()


def has_left(fd: int) -> bool:
    """Whether the peer has sent its last byte already, read or not."""
    if not hasattr(select, "POLLRDHUP"):
        return False
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))
