"""The server's records for an application that keeps none of its own: crashes, refusals, and what it logs.

The same files, levels and redaction as for a configuration's own application (``gateway/runtime.py``). It imports no
configuration: a worker of another application has none of it in memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

from ...core.errors import ConfigError
from ...core.events import NULL, Recorder
from ...logs import LOGGERS, Redactor, bridge, open_recorder, redacted_console


@asynccontextmanager
async def recording(
    app: Any, logs: Mapping[str, Any], warn: Callable[[object], None], *, required: bool
) -> AsyncGenerator[Recorder, None]:
    """What records for ``app`` until the block ends; nothing if it has a recorder.

    ``logs`` is the section of that name as plain values. ``required``: it stands in a file. Else the files are the
    default ones below the working directory; where they cannot be written there are no records, and ``warn`` is told.

    Raises:
        ConfigError: the files that are required cannot be opened.
    """
    async with AsyncExitStack() as stack:
        if hasattr(app, "recorder"):
            yield NULL
            return
        stack.enter_context(redacted_console(Redactor(logs["redact"])))
        yield await _open(stack, _as_section(logs), warn, required)


async def _open(stack: AsyncExitStack, logs: Any, warn: Callable[[object], None], required: bool) -> Recorder:
    try:
        recorder = await stack.enter_async_context(open_recorder(logs))
    except ConfigError as error:
        if required:
            raise
        warn(f"the server keeps no records: {error}")
        return NULL
    stack.enter_context(bridge(recorder.app, *LOGGERS, repeats=False))
    return recorder


def _as_section(values: Mapping[str, Any]) -> SimpleNamespace:
    """Plain values with the attributes of a section of the configuration."""
    return SimpleNamespace(
        **{name: _as_section(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    )
