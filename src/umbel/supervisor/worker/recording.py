"""Records for an application that keeps none of its own: crashes, error responses, and what it logs.

Files, levels and redaction are those of the gateway (``gateway/runtime.py``). No configuration code is imported, so
that it takes no memory in a worker of another application.
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
    """Open a recorder for ``app`` until the block ends; ``NULL`` if ``app`` has a recorder.

    ``logs`` is the section ``[logs]`` as plain values. ``required`` says that it stands in a file. Otherwise the files
    are the default ones below the working directory; where these cannot be written, ``warn`` is called and nothing is
    recorded.

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
