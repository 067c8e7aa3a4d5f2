"""Records for an application without a recorder of its own: crashes, error responses, and records of ``logging``.

Files, levels and redaction are those of the gateway. No configuration code is imported, so that it takes no memory in
workers of other applications.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

from ...core.errors import ConfigError
from ...core.events import NULL, Recorder
from ...core.http.probe_paths import PROBES
from ...logs import LOGGERS, Redactor, bridge, open_recorder, redacted_console


@asynccontextmanager
async def recording(
    app: Any, logs: Mapping[str, Any], probes: Sequence[str], warn: Callable[[object], None], *, required: bool
) -> AsyncGenerator[Recorder, None]:
    """Context manager: open a recorder for ``app``, which also gets the records of ``logging``; gives the recorder.

    Gives ``NULL`` if ``app`` has a recorder of its own, or if the files cannot be opened and are not required.

    Args:
        app: the application.
        logs: the section ``[logs]`` as plain values.
        probes: the paths of probes besides ``/livez`` and ``/readyz``, as for ``open_recorder``.
        warn: called with a message that has the error, if the files cannot be opened and are not required.
        required: whether ``[logs]`` is configured, so that its files must be writable.

    Raises:
        ConfigError: required files cannot be opened.
    """
    async with AsyncExitStack() as stack:
        if hasattr(app, "recorder"):
            yield NULL
            return
        stack.enter_context(redacted_console(Redactor(logs["redact"])))
        yield await _open(stack, _as_section(logs), probes, warn, required)


async def _open(
    stack: AsyncExitStack, logs: Any, probes: Sequence[str], warn: Callable[[object], None], required: bool
) -> Recorder:
    try:
        recorder = await stack.enter_async_context(open_recorder(logs, {*PROBES, *probes}))
    except ConfigError as error:
        if required:
            raise
        warn(f"the server writes no records: {error}")
        return NULL
    stack.enter_context(bridge(recorder.app, *LOGGERS, repeats=False))
    return recorder


def _as_section(values: Mapping[str, Any]) -> SimpleNamespace:
    """Return an object whose attributes are those of a section of the configuration."""
    return SimpleNamespace(
        **{name: _as_section(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    )
