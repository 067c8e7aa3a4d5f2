"""What may stand in hypercorn.toml: Hypercorn's keys with their types, and whose business the others are.

Used by ``settings.py`` alone. Hypercorn itself takes any key and any value in silence; this file is the only place
that knows better. It holds no value of ours.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..config.section import AS_TUPLE, Section


def _not_negative(value: float) -> float:
    if math.isnan(value) or value < 0:
        raise ValueError("must be a number of seconds, 0 or more")
    return value


def _positive(value: float) -> float:
    if not value > 0:
        raise ValueError("must be a number of seconds, more than 0")
    return value


Seconds = Annotated[float, AfterValidator(_not_negative)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Texts = Annotated[tuple[str, ...], AS_TUPLE]
TextOrTexts = str | Texts


class HypercornFile(Section):
    """The keys of Hypercorn 0.18 that a TOML file can set. None stands for "not in the file"."""

    access_log_format: str | None = None
    accesslog: str | None = None
    alpn_protocols: Texts | None = None
    alt_svc_headers: Texts | None = None
    application_path: str | None = None
    backlog: Positive | None = None
    bind: TextOrTexts | None = None
    ca_certs: str | None = None
    certfile: str | None = None
    ciphers: str | None = None
    daemon: bool | None = None
    debug: bool | None = None
    dogstatsd_tags: str | None = None
    errorlog: str | None = None
    graceful_timeout: Seconds | None = None
    group: Count | None = None
    h11_pass_raw_headers: bool | None = None
    h2_max_concurrent_streams: Positive | None = None
    h2_max_inbound_frame_size: Annotated[int, Field(ge=2**14, le=2**24 - 1)] | None = None
    include_date_header: bool | None = None
    include_server_header: bool | None = None
    insecure_bind: TextOrTexts | None = None
    keep_alive_max_requests: Positive | None = None
    keep_alive_timeout: Seconds | None = None
    keyfile: str | None = None
    keyfile_password: str | None = None
    logconfig: str | None = None
    logconfig_dict: dict[str, Any] | None = None
    loglevel: str | None = None
    max_app_queue_size: Positive | None = None
    max_requests: Positive | None = None
    max_requests_jitter: Count | None = None
    pid_path: str | None = None
    quic_bind: TextOrTexts | None = None
    root_path: str | None = None
    shutdown_timeout: Seconds | None = None
    ssl_handshake_timeout: Seconds | None = None
    startup_timeout: Seconds | None = None
    statsd_host: str | None = None
    statsd_prefix: str | None = None
    umask: Count | None = None
    use_reloader: bool | None = None
    user: Count | None = None
    verify_flags: Count | None = None
    verify_mode: Annotated[int, Field(ge=0, le=2)] | None = None
    websocket_max_message_size: Positive | None = None
    websocket_ping_interval: Annotated[float, AfterValidator(_positive)] | None = None
    worker_class: Literal["trio"] | None = None
    workers: Count | None = None
    wsgi_max_body_size: Positive | None = None


IN_UMBEL_TOML = {
    "h11_max_incomplete_size": "max_head",
    "h2_max_header_list_size": "max_head",
    "read_timeout": "head_timeout and body_timeout",
    "server_names": "hosts",
}
"""Keys of Hypercorn for what umbel.toml sets for both protocols: the key of ``[server]`` that stands in for each."""

UNHEEDED = {
    "access_log_format": "Umbel writes an access log of its own; see [logs] in umbel.toml",
    "accesslog": "Umbel writes an access log of its own; see [logs] in umbel.toml",
    "application_path": "it is given on the command line",
    "daemon": "the process stays in the foreground",
    "debug": "it is a switch of Hypercorn's own command",
    "dogstatsd_tags": "nothing is sent to statsd",
    "h11_pass_raw_headers": "names of fields are always in lower case",
    "quic_bind": "HTTP/3 is not served",
    "statsd_host": "nothing is sent to statsd",
    "statsd_prefix": "nothing is sent to statsd",
    "use_reloader": "there is no reloader",
    "workers": "say how many to umbel serve, with -w",
    "wsgi_max_body_size": "no WSGI application is served",
}
"""Keys that mean something to the ``hypercorn`` command only, which may share the file; why nothing comes of them."""

PATHS = ("ca_certs", "certfile", "keyfile", "pid_path")
"""Keys whose values are paths and nothing else."""
