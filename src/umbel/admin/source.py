"""What the admin side asks: the interface to the process, or to the processes of a master, behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

COMMANDS = ("scale", "reload", "drain", "kill", "reopen", "log-level", "stop")
"""The commands, each ``POST /ctl/<command>``."""
LEVEL_NEEDED = "log-level needs a level: debug, info, warning, error or critical"
"""Why ``log-level`` without an argument is refused."""


Report = Callable[[str, str], object]
"""Reports a failure once to operators: the name of the event, and a sentence."""


class CommandError(Exception):
    """A command cannot be carried out. ``str(error)``, the text for the client, says why and what to do."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What may be subscribed to."""

    sample: Callable[[], Awaitable[Any]]
    """Returns the present data, which is written as JSON, in a bounded time."""
    period: float = 1.0
    """The least seconds between two samples."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """The metrics of all processes, as a scraper reads them."""

    content_type: str
    text: bytes


class AdminSource(Protocol):
    """Gives the state of the process behind an admin side, and carries out commands.

    Every method returns in a bounded time while event loops of other processes or threads are blocked. A cancel of a
    command does not undo it.
    """

    async def status(self) -> dict[str, Any]:
        """The state as plain data: of a master under ``master`` and ``slots``, else under ``process``."""
        ...

    async def trees(self) -> Sequence[Any]:
        """The task tree of each process, as data that is written as JSON (``observe.tree.nodes.ProcessTree``)."""
        ...

    async def lints(self) -> Sequence[Any]:
        """The lints of each process, as data that is written as JSON (``observe.lints.lint.Lint``)."""
        ...

    async def plan(self, route: str) -> dict[str, Any] | None:
        """The plans of the configured routes with this path, as plain data; None: there are none."""
        ...

    async def configuration(self) -> dict[str, Any]:
        """The configuration as loaded, as plain data without secrets: ``rows`` with ``key``, ``value`` and ``at``."""
        ...

    async def slow(self) -> dict[str, Any]:
        """The kept requests of all processes: ``requests`` with ``id`` and ``process``, the latest first."""
        ...

    async def slow_request(self, request: str) -> dict[str, Any] | None:
        """The timeline of a kept request by its id: ``id``, ``process``, ``timeline``; None: there is none."""
        ...

    def topics(self) -> Mapping[str, Topic]:
        """What pages may subscribe to, by name."""
        ...

    async def metrics(self, *, openmetrics: bool) -> Metrics:
        """The metrics of all processes, in the format of OpenMetrics or in the classic one."""
        ...

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether the process should get requests, and the reasons as plain data."""
        ...

    async def command(self, name: str, arguments: bytes) -> dict[str, Any]:
        """Carry out one of ``COMMANDS``; ``arguments`` is a JSON object, or empty for none. Return its answer.

        Raises:
            CommandError: the arguments are invalid, or the command cannot be carried out.
        """
        ...
