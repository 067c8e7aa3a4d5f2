"""The admin side of a process without a master: served by a thread, so that it answers while the event loop is blocked.

The thread runs trio by itself. A task of the event loop waits for it, so it never outlives the block of
``process_admin``: the end of the block, or a cancel, has the thread cancel all of its tasks. Nothing in the thread's
tasks waits for a disk or a name server, since that is done in further threads that a cancel abandons; so the end comes
within milliseconds, or within ``LOCK_S_MAX`` of a socket's directory that another process has locked.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import trio

from ...admin.listeners import terminal_listener
from ...admin.settings import AdminSettings
from ...admin.side import AdminSide, OnceReporter
from ...admin.source import Report
from ...core.console import say, say_at_once
from ...core.diagnostics.redact import Redactor
from ...net.exception_groups import described
from ..lints.watch import LintWatch
from .observed_loop import ObservedLoop
from .process_source import PROCESS, ProcessSource, ProcessView

RESTART_S = 10.0
"""Seconds after a failure of the thread until there is another one."""


@dataclass(frozen=True, slots=True)
class AdminOptions:
    """How a process was started, for its admin side."""

    strict: bool = False
    """Whether a configured address that cannot be bound is an error, and failures are also written to stderr. If not,
    they are only reported: several processes that were started together have one configuration, and the first one has
    the address."""
    terminal: bool = False
    """Whether a person may sit at stderr, who gets the URL of the page."""


_running: dict[trio.lowlevel.TrioToken, list[ProcessView]] = {}
"""The views of the admin sides of this process, by event loop."""


@asynccontextmanager
async def process_admin(
    view: ProcessView, settings: AdminSettings, report: Report, options: AdminOptions = AdminOptions()
) -> AsyncGenerator[None, None]:
    """Context manager: serve the admin side of this process while the block runs.

    An event loop has one admin side. If there is one already (an application within an application), it shows ``view``
    while the block runs, and ``settings`` have no effect.

    Args:
        view: what is shown.
        settings: the addresses.
        report: takes failures, from any thread; it must neither wait nor raise.
        options: how the process was started.

    Raises:
        ConfigError: with ``options.strict``, a configured address cannot be bound.
    """
    token = trio.lowlevel.current_trio_token()
    if (views := _running.get(token)) is not None:
        views.append(view)
        try:
            yield
        finally:
            views.remove(view)
        return
    views = _running[token] = [view]
    report = partial(_report_and_say, report) if options.strict else report
    side = AdminSide(settings, report, terminal=terminal_listener if options.terminal else None)
    try:
        await trio.to_thread.run_sync(partial(side.open_addresses, strict=options.strict))
        async with serving_in_thread(side, views, report):
            if options.terminal and (url := side.page_url()) is not None:
                say(f"The console (this URL opens it once): {url}")
            yield
    finally:
        side.close()
        del _running[token]


@asynccontextmanager
async def serving_in_thread(
    side: AdminSide, views: Sequence[ProcessView], report: Report
) -> AsyncGenerator[None, None]:
    """Context manager: serve ``side`` in a thread while the block runs; closes its addresses.

    The block begins when the Unix socket is open, or could not be opened.

    Args:
        side: the admin side, with its addresses open.
        views: what is shown; the last one counts.
        report: takes failures, from any thread; it must neither wait nor raise.
    """
    try:
        async with trio.open_nursery() as nursery:
            lints = LintWatch(PROCESS, lambda: views[-1].queues())
            thread = _AdminThread(side, ProcessSource(ObservedLoop(nursery), views, lints), report)
            watching = trio.CancelScope()
            try:
                nursery.start_soon(thread.run)
                nursery.start_soon(_run_within, watching, lints.run)
                await thread.opened.wait()
                yield
            finally:
                watching.cancel(reason="the admin side ends with its process")
                thread.stop()
    finally:
        side.close()


async def _run_within(scope: trio.CancelScope, function: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await function()


def _report_and_say(report: Report, event: str, sentence: str) -> None:
    """Report a failure, and write it to stderr: ``umbel ctl`` cannot show it if the Unix socket has failed."""
    report(event, sentence)
    say_at_once(Redactor().text(f"{event}: {sentence}"))


class _AdminThread:
    """The thread of an admin side.

    Args:
        side: is served.
        source: answers; its observed loop is that of the caller.
        report: takes failures of the thread.
    """

    def __init__(self, side: AdminSide, source: ProcessSource, report: Report) -> None:
        self.opened = trio.Event()
        """Set when the Unix socket is open, or could not be opened."""
        self._side = side
        self._source = source
        self._report = OnceReporter(report)
        self._caller = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._stopping = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        """The thread's trio run; None while there is none."""
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Run the thread, and another one after a failure, until ``stop``. A cancel alone does not end the thread."""
        limiter = trio.CapacityLimiter(1)
        while not self._stopping.is_set():
            try:
                await trio.to_thread.run_sync(trio.run, self._serve, limiter=limiter, thread_name="umbel-admin")
            except Exception as error:  # noqa: BLE001 - no failure of the admin side ends the process
                self._report("admin.failed", f"the thread of the admin side has failed: {described(error)}")
            self.opened.set()
            with trio.move_on_after(RESTART_S):
                await self._stopping.wait()

    def stop(self) -> None:
        """Have the thread end. Called in the event loop."""
        self._stopping.set()
        with self._lock:
            token = self._token
        if token is not None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self._cancel)

    def _cancel(self) -> None:
        self._scope.cancel(reason="the admin side ends with its process")

    async def _serve(self) -> None:
        """Serve until ``stop``, in the thread's trio run."""
        with trio.CancelScope() as self._scope:
            with self._lock:
                self._token = trio.lowlevel.current_trio_token()
            if self._stopping.is_set():  # ``stop`` may have found no token.
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._source.beat)
                await nursery.start(self._side.run, self._source)
                self._caller.run_sync_soon(self.opened.set)
                await trio.sleep_forever()
