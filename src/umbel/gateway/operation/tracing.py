"""Traces of a gateway: whether they are exported, and the checks of ``[traces]``."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from ...config.schema.process.traces import Traces as Section
from ...core.errors import ConfigError, ConfigProblem
from ...core.events import LogMessage
from ...observe.traces.export import SpanExport, open_export
from ...observe.traces.extra import ENDPOINTS, HOW_TO_INSTALL, endpoint_in, is_installed, is_switched_off
from ...observe.traces.sampling import Traces, head_bound

if TYPE_CHECKING:
    from ...config.schema.sections import Config, KeyPath
    from ...observe.request_counts import CountingRecorder

_ONLY_WITH_ENDPOINT = tuple(name for name in Section.model_fields if name != "otlp")


def is_exporting(config: Config, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether traces are exported: ``[traces]`` or the environment names a collector, and nothing switches them off.

    Without the libraries they are not, unless ``[traces]`` names the collector: then ``check`` has failed already.
    """
    if is_switched_off(environ):
        return False
    return config.traces.otlp is not None or (endpoint_in(environ) is not None and is_installed())


def head_bound_of(config: Config) -> str | None:
    """Which new traces are sampled (``GatewayContext.head_bound``)."""
    return head_bound(config.traces.sample) if is_exporting(config) else None


@asynccontextmanager
async def exported_traces(config: Config, recorder: CountingRecorder) -> AsyncGenerator[SpanExport | None, None]:
    """Context manager: export traces of the requests that ``recorder`` counts, while the block runs.

    It gives None if no traces are exported. To be entered in the process that serves.

    Raises:
        ConfigError: the libraries are missing, or a variable of OpenTelemetry has an invalid value.
    """
    section = config.traces
    if not is_exporting(config):
        if endpoint_in(os.environ) is not None and not is_switched_off(os.environ):
            recorder.record(LogMessage("warning", "traces.off", f"traces are not exported: {_MISSING}"))
        yield None
        return
    async with AsyncExitStack() as stack:
        try:
            export = await stack.enter_async_context(open_export(section.otlp, recorder, use_proxy=section.use_proxy))
        except (ImportError, ValueError) as error:
            reason = _MISSING if isinstance(error, ImportError) else f"OpenTelemetry's variables: {error}"
            raise ConfigError([ConfigProblem(config.where(("traces",)), None, "traces", reason)]) from error
        recorder.traces = Traces(export, section.slow, force=section.force)
        try:
            yield export
        finally:
            recorder.traces = None


_MISSING = f"the libraries for the export are not installed; run {HOW_TO_INSTALL}"


def check(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield the mistakes as key path and reason. For the argument ``checks`` of ``load``."""
    if config.traces.otlp is not None and not is_installed():
        yield ("traces", "otlp"), _MISSING


def warn(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Warn of keys without effect, and of a collector in the environment to which nothing can be exported."""
    section, environ = config.traces, os.environ
    given = section.model_fields_set
    if is_switched_off(environ):
        if section.otlp is not None:
            yield ("traces", "otlp"), "has no effect: OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER switches traces off"
        return
    if section.otlp is None and endpoint_in(environ) is None:
        for key in _ONLY_WITH_ENDPOINT:
            if key in given:
                yield ("traces", key), f"has no effect without otlp, or {ENDPOINTS[1]} in the environment"
    elif section.otlp is None and not is_installed():
        yield ("traces",), f"traces are not exported although the environment names a collector: {_MISSING}"
