"""What a process shows: its figures and metrics, how those of several processes are added, and its event loop.

``console`` shows any trio program live in a browser::

    async with umbel.observe.console():
        ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .program_console import Console, console

__all__ = ["Console", "console"]


def __getattr__(name: str) -> Any:
    """Import ``console`` on first use (PEP 562): a process that does not use it does not pay for its server."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import program_console

    value = getattr(program_console, name)
    globals()[name] = value
    return value
