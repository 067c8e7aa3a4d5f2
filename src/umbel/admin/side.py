"""The admin side of a process: its listening sockets, kept open, and the site behind them.

It must never end the process that it observes. So each listening socket has a task that serves it and, after any
failure, opens it again after a delay; a failure is reported once. A Unix socket whose path was removed is opened again
as well. Only the first binding of a configured address may be an error, because an operator has asked for it.

Cancellation: each task closes its socket at once and removes its path. A socket that a thread is just opening is
closed by that thread.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection
from contextlib import aclosing
from functools import partial
from time import monotonic
from typing import TypeVar

import trio
from trio_util import periodic

from ..core.errors import ConfigError, ConfigProblem
from ..net.exception_groups import described, first_leaf, split_crash
from .connections import serve_connections
from .credentials import Credentials
from .guard import Hosts, ScraperGuard, TcpGuard, UnixGuard
from .listeners import AdminListener, tcp_listener, unix_listener
from .live import LiveFeeds
from .settings import AdminSettings
from .site import PATHS, AdminSite
from .source import AdminSource, Report

CHECK_S = 2.0
"""Seconds between two looks at the path of the Unix socket."""
DELAY_S_MIN, DELAY_S_MAX = 1.0, 30.0
"""Seconds after a failure until the socket is opened again: at first, and after several failures."""
STABLE_S = 60.0
"""Seconds for which a socket is served until its next failure counts as the first one."""
REPORTED_S = 600.0
"""Seconds without a failure of one kind, after which the next one is reported again."""
_Result = TypeVar("_Result")
_KINDS_MAX = 100
"""The bound on kinds of failures that are told apart."""


class OnceReporter:
    """Reports each kind of failure once, and again after it was absent for ``REPORTED_S``. For any thread."""

    def __init__(self, report: Report, clock: Callable[[], float] = monotonic) -> None:
        self._report = report
        self._clock = clock
        self._until: dict[str, float] = {}

    def __call__(self, event: str, sentence: str) -> None:
        """Report the failure, unless one of the same kind (``event``) happened lately."""
        now = self._clock()
        if event not in self._until and len(self._until) >= _KINDS_MAX:
            return
        is_known = self._until.get(event, now) > now
        self._until[event] = now + REPORTED_S
        if not is_known:
            self._report(event.partition(" ")[0], sentence)


class _Address:
    """One address of an admin side: how it is opened, and its listening socket while it is open."""

    def __init__(
        self,
        what: str,
        open_listener: Callable[[], AdminListener],
        configured: str = "",
        *,
        scraper: bool = False,
        needed: bool = False,
    ) -> None:
        self.what = what
        """The address in messages."""
        self.open = open_listener
        self.configured = configured
        """``host:port`` as configured; empty if it is not configured."""
        self.scraper = scraper
        """Whether only ``/metrics`` is served, without a token."""
        self.needed = needed
        """Whether the side cannot begin without it, though it is not configured."""
        self.key = what if configured else ""
        """The key of the configuration that names the address; empty if none does."""
        self.listener: AdminListener | None = None


class AdminSide:
    """The admin side of a process; ``open_addresses`` and then ``run``.

    Args:
        settings: the addresses and the token.
        report: takes failures: the name of an event, and a sentence. It must neither wait nor raise.
        terminal: opens an address on loopback for the person at the terminal, if none is configured; None: none.
        needs_terminal: whether it is an error if that address cannot be opened.
        paths: the paths that are served, except at the address for scrapers.
        topics: the topics of the source that pages may subscribe to; None: all.
    """

    def __init__(
        self,
        settings: AdminSettings,
        report: Report,
        *,
        terminal: Callable[[], AdminListener] | None = None,
        needs_terminal: bool = False,
        paths: Collection[str] = PATHS,
        topics: Collection[str] | None = None,
    ) -> None:
        self.credentials = Credentials(settings.token)
        self._report = OnceReporter(report)
        self._paths = paths
        self._topics = topics
        self._addresses: list[_Address] = []
        self._unix: _Address | None = None
        if settings.place is not None:
            self._unix = _Address(f"the socket in {settings.place.directory}", partial(unix_listener, settings.place))
            self._addresses.append(self._unix)
        self._page: _Address | None = None
        if settings.bind is not None:
            self._page = self._add("admin.bind", settings.bind)
        elif terminal is not None:
            self._page = _Address("the address for the terminal", terminal, needed=needs_terminal)
            self._addresses.append(self._page)
        if settings.metrics is not None:
            self._add("admin.metrics", settings.metrics, scraper=True)

    def _add(self, key: str, configured: str, *, scraper: bool = False) -> _Address:
        address = _Address(key, partial(tcp_listener, configured), configured, scraper=scraper)
        self._addresses.append(address)
        return address

    def open_addresses(self, *, strict: bool = True) -> None:
        """Bind the addresses, but not the Unix socket. Blocking, as a host name may have to be resolved.

        A configured address that cannot be bound is an error with ``strict``, else a failure that is reported.

        Raises:
            ConfigError: a configured address cannot be bound.
            OSError: the address for the terminal cannot be bound, and is needed.
        """
        for address in self._tcp():
            try:
                address.listener = address.open()
            except OSError as error:
                if address.needed:
                    self.close()
                    raise
                reason = error.strerror or str(error)
                if strict and address.key:
                    self.close()
                    raise ConfigError([ConfigProblem("", None, address.key, reason)]) from error
                self._report(f"admin.closed {address.what}", f"{address.what}: {reason}")

    def _tcp(self) -> list[_Address]:
        return [address for address in self._addresses if address is not self._unix]

    def close(self) -> None:
        """Close all listening sockets. Never raises."""
        for address in self._addresses:
            if address.listener is not None:
                address.listener.close()
                address.listener = None

    def page_url(self) -> str | None:
        """The URL of the page with a new one-time token, for a person who may read it; None without an address."""
        if self._page is None or self._page.listener is None:
            return None
        host, _, port = self._page.listener.address.rpartition(":")
        shown = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
        return f"http://{shown}:{port}/?token={self.credentials.new_one_time_token()}"

    async def run(self, source: AdminSource, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; no failure ends it. ``task_status``: the Unix socket is open, or could not be opened.

        Closes all listening sockets at the end.
        """
        try:
            topics = source.topics()
            served = topics if self._topics is None else {name: topics[name] for name in self._topics}
            self._feeds = LiveFeeds(served, self._report)
            async with trio.open_nursery() as nursery:
                for address in self._tcp():
                    nursery.start_soon(self._keep_open, address, source)
                if self._unix is not None:
                    await nursery.start(self._keep_open, self._unix, source)
                task_status.started()
        finally:
            self.close()

    async def _keep_open(
        self,
        address: _Address,
        source: AdminSource,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve an address, and open it again after each failure."""
        delay, waiting = DELAY_S_MIN, [task_status]
        while True:
            began = trio.current_time()
            try:
                await self._serve(address, source, waiting)
            except BaseException as error:  # noqa: BLE001 - raises on what is not its to end
                # A cancel must pass, and only a cancel: a failure beside it would end the process.
                crash, rest = split_crash(error)
                if crash is not None:
                    cause = first_leaf(crash, OSError)
                    reason = described(crash) if cause is None else cause.strerror or str(cause)
                    self._report(f"admin.closed {address.what}", f"{address.what} is not served: {reason}")
                if rest is not None:
                    raise rest from None
            if address.listener is not None:
                await _in_thread(address.listener.close)
                address.listener = None
            _start(waiting)
            if trio.current_time() - began > STABLE_S:
                delay = DELAY_S_MIN
            await trio.sleep(delay)
            delay = min(2 * delay, DELAY_S_MAX)

    async def _serve(self, address: _Address, source: AdminSource, waiting: list[trio.TaskStatus[None]]) -> None:
        """Open the address, unless it is open, and serve it until its path is gone."""
        if address.listener is None:
            address.listener = await _open_in_thread(address.open)
        listener = address.listener
        site = self._site(address, listener, source)
        _start(waiting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connections, site, listener.socket, self._report)
            if not listener.is_unix:
                await trio.sleep_forever()
            async with aclosing(periodic(CHECK_S)) as looks:
                async for _ in looks:
                    if await _in_thread(listener.is_gone):
                        break
            nursery.cancel_scope.cancel(reason="the path of the socket is gone")
        self._report(f"admin.removed {address.what}", f"{listener.address} was removed; it is made again")

    def _site(self, address: _Address, listener: AdminListener, source: AdminSource) -> AdminSite:
        if address.scraper:
            return AdminSite(source, ScraperGuard(listener.address, address.configured), self._report, ["/metrics"])
        if listener.is_unix:
            return AdminSite(source, UnixGuard(), self._report, self._paths, self.page_url, self._feeds)
        hosts = Hosts(listener.address, address.configured or listener.address, [socket.gethostname()])
        port = listener.address.rpartition(":")[2]
        guard = TcpGuard(hosts, self.credentials, port, has_ctl=self._unix is not None)
        return AdminSite(source, guard, self._report, self._paths, self.page_url, self._feeds)


def _start(waiting: list[trio.TaskStatus[None]]) -> None:
    while waiting:
        waiting.pop().started()


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Call a function that blocks in a thread, which a cancel abandons."""
    return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))


async def _open_in_thread(open_listener: Callable[[], AdminListener]) -> AdminListener:
    """Open a listening socket in a thread. After a cancel, the abandoned thread closes it.

    Raises:
        OSError: from ``open_listener``.
    """
    lock, opened = threading.Lock(), list[AdminListener]()
    abandoned = False

    def work() -> AdminListener:
        listener = open_listener()
        with lock:
            if abandoned:
                listener.close()
            opened.append(listener)
        return listener

    try:
        return await _in_thread(work)
    except trio.Cancelled:
        with lock:
            abandoned = True
            for listener in opened:
                listener.close()
        raise
