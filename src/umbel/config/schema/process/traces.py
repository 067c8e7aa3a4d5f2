"""The section ``[traces]``: which requests are exported as traces, and to which collector."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from ..section import Section
from ..values.types import BaseUrl
from ..values.units import Duration, Probability


def _http_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError('needs the http:// or https:// URL of a collector, such as "http://127.0.0.1:4318"')
    return value


CollectorUrl = Annotated[BaseUrl, AfterValidator(_http_url)]


class Traces(Section):
    """Traces: spans of requests, their calls and attempts, sent to an OpenTelemetry collector. Needs
    pip install 'umbel[otel]'. OpenTelemetry's variables (OTEL_*) hold too, except those of its samplers."""

    otlp: CollectorUrl | None = None
    """The base URL of a collector that takes OTLP over HTTP, such as "http://127.0.0.1:4318"; /v1/traces is added.
    Default: that of OTEL_EXPORTER_OTLP_ENDPOINT; without either, nothing is exported."""
    sample: Probability = 0.05
    """The probability, such as 0.05 or "5%", with which a request is exported from the start; upstreams get this
    decision in traceparent. A decision in the client's traceparent holds instead."""
    slow: Duration = 1.0
    """The time from which on a request is exported although it was not chosen, as failed and partial ones are."""
    force: bool = False
    """Whether slow, failed and partial requests are also exported if the client's traceparent says "not sampled"."""
    use_proxy: bool = False
    """Whether the export heeds HTTP_PROXY, HTTPS_PROXY, NO_PROXY and .netrc of the environment."""
