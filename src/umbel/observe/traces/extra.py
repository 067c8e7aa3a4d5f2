"""The libraries of ``umbel[otel]``, and OpenTelemetry's variables that say whether traces are exported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

HOW_TO_INSTALL = "pip install 'umbel[otel]'"
"""The command that installs the libraries."""
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The variables with the URL of a collector."""
_MODULES = ("opentelemetry.sdk.trace.export", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


@cache
def is_installed() -> bool:
    """Whether the libraries can be imported. The first call imports them, which takes some 300 ms."""
    try:
        for module in _MODULES:
            import_module(module)
    except ImportError:
        return False
    return True


def is_switched_off(environ: Mapping[str, str]) -> bool:
    """Whether the environment switches traces off: OTEL_SDK_DISABLED, or OTEL_TRACES_EXPORTER without ``otlp``."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return True
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return bool(exporters) and "otlp" not in {name.strip() for name in exporters.split(",")}


def endpoint_in(environ: Mapping[str, str]) -> str | None:
    """The URL of a collector in the environment; None without one."""
    return next((url for name in ENDPOINTS if (url := environ.get(name, "").strip())), None)
