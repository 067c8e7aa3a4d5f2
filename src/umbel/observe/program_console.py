"""The console of any trio program: its live task tree and its lints in a browser, while a block runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ..admin.listeners import tcp_listener, terminal_listener
from ..admin.settings import AdminSettings
from ..admin.side import AdminSide
from ..admin.site import PROGRAM_PATHS
from ..core.console import say, say_at_once
from ..net.exception_groups import holds_only
from .figures import ProcessFigures
from .process.process_side import serving_in_thread
from .process.process_source import PROCESS

if TYPE_CHECKING:
    from ..logs.records.level import LevelName
    from .kept_requests import KeptRequests
    from .lints.tasks import ObservedQueue
    from .traffic.upstreams import Snapshots
    from .tree.reader import Frames

_TOPICS = ("tree", "lints", "workers")


class Console:
    """The console of a program, while its block runs."""

    def __init__(self, side: AdminSide) -> None:
        self._side = side

    def url(self) -> str:
        """A new URL of the page. A browser can open it once, within ten minutes; it may then reload the page.

        Raises:
            RuntimeError: the console has ended, or its address is being opened again after a failure.
        """
        url = self._side.page_url()
        if url is None:
            raise RuntimeError("the console is not served at the moment; use it within its block")
        return url


@asynccontextmanager
async def console(
    *, port: int | None = None, announce: Callable[[str], object] | None = None
) -> AsyncGenerator[Console, None]:
    """Show this trio program live in a browser while the block runs: its task tree, and the lints of its event loop.

    The page is served on 127.0.0.1 by a thread, so it also answers while the event loop is blocked, and shows where.
    Its URL has a token that is valid once; the program pays nothing while no page is open. At the end of the block, and
    at a cancel, the thread ends and nothing remains. No failure of the console ends the program; it is written to
    stderr once. Several consoles may run at once, also within a gateway.

    Args:
        port: the port; None: the first free one from 9600 on; 0: any free one.
        announce: gets the sentence with the URL; None: it is written to stderr.

    Raises:
        OSError: the port cannot be bound.
        RuntimeError: the program does not run on trio.
    """
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError("umbel.observe.console() must be used in a task of trio.run; it shows no asyncio program")
    open_listener = terminal_listener if port is None else partial(tcp_listener, f"127.0.0.1:{port}")
    side = AdminSide(
        AdminSettings(place=None),
        _report,
        terminal=open_listener,
        needs_terminal=True,
        paths=PROGRAM_PATHS,
        topics=_TOPICS,
    )
    raised: BaseException | None = None
    try:
        await trio.to_thread.run_sync(side.open_addresses)
        async with serving_in_thread(side, [_ProgramView()], _report):
            shown = Console(side)
            (say if announce is None else announce)(f"The console (this URL opens it once): {shown.url()}")
            try:
                yield shown
            except trio.Cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - it is raised again
                raised = error  # Not through the nursery, which would wrap it: a program does not notice the console.
    except BaseException as error:
        # The console's own tasks are cancelled too if a scope around the block is. What the block raised counts then.
        if raised is None or not holds_only(error, trio.Cancelled):
            raise
    finally:
        side.close()
    if raised is not None:
        raise raised


def _report(event: str, sentence: str) -> None:
    say_at_once(f"{event}: {sentence}")


class _ProgramView:
    """A ``ProcessView`` of a program of which only the event loop is known."""

    def state(self) -> str:
        """It runs."""
        return "running"

    def statistics(self) -> dict[str, Any]:
        """There are no counters."""
        return {}

    def figures(self) -> ProcessFigures:
        """There are none."""
        return ProcessFigures(process=PROCESS, pid=0, values={})

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """It is ready while it runs."""
        return True, {}

    def kept_requests(self) -> KeptRequests | None:
        """It keeps no requests."""
        return None

    def frames(self) -> Frames:
        """It has no requests."""
        return {}

    def upstreams(self) -> Snapshots:
        """It has none."""
        return {}

    def queues(self) -> list[ObservedQueue]:
        """Only trio's channels are known, which are found at the tasks that wait."""
        return []

    def plan(self, route: str) -> dict[str, Any] | None:
        """It has no routes."""
        return None

    def configuration(self) -> dict[str, Any]:
        """It has none."""
        return {"rows": [], "left_out": 0}

    def set_log_level(self, level: LevelName) -> bool:
        """It has no log."""
        return False

    async def reopen(self) -> None:
        """It has no log files."""
