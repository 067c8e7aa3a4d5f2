"""The schema of hypercorn.toml: Hypercorn's keys with their types, and the keys without effect under Umbel.

Hypercorn itself accepts any key and any value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..schema.section import AS_TUPLE, Section
from ..schema.values.units import DURATION_S_MAX


def _not_negative(value: float) -> float:
    if not 0 <= value <= DURATION_S_MAX:
        raise ValueError(f"must be a number of seconds, 0 or more{_AT_MOST if value > 0 else ''}")
    return value


def _positive(value: float) -> float:
    if not 0 < value <= DURATION_S_MAX:
        raise ValueError(f"must be a number of seconds, more than 0{_AT_MOST if value > 0 else ''}")
    return value


_AT_MOST = f" and at most {DURATION_S_MAX:.0f}"
_INT_MAX = 2**31 - 1
"""The largest ``int`` of a system call."""
_ID_MAX = 2**32 - 2
"""The highest id of a user or a group. The next number means "none" in system calls."""
_COUNT_MAX = 2**63 - 1

Seconds = Annotated[float, AfterValidator(_not_negative)]
Time = Annotated[float, AfterValidator(_positive)]
"""Seconds of a timeout, which must not be 0."""
Count = Annotated[int, Field(ge=0, le=_COUNT_MAX)]
Positive = Annotated[int, Field(ge=1, le=_COUNT_MAX)]
Id = Annotated[int, Field(ge=0, le=_ID_MAX)]
Texts = Annotated[tuple[str, ...], AS_TUPLE]
TextOrTexts = str | Texts


class HypercornFile(Section):
    """The keys of Hypercorn 0.18 that a TOML file can set. None: the file does not have the key."""

    access_log_format: str | None = None
    accesslog: str | None = None
    alpn_protocols: Texts | None = None
    alt_svc_headers: Texts | None = None
    application_path: str | None = None
    backlog: Annotated[int, Field(ge=1, le=_INT_MAX)] | None = None
    bind: TextOrTexts | None = None
    ca_certs: str | None = None
    certfile: str | None = None
    ciphers: str | None = None
    daemon: bool | None = None
    debug: bool | None = None
    dogstatsd_tags: str | None = None
    errorlog: str | None = None
    graceful_timeout: Seconds | None = None
    group: Id | None = None
    h11_pass_raw_headers: bool | None = None
    h2_max_concurrent_streams: Annotated[int, Field(ge=1, le=_INT_MAX)] | None = None
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
    shutdown_timeout: Time | None = None
    ssl_handshake_timeout: Time | None = None
    startup_timeout: Time | None = None
    statsd_host: str | None = None
    statsd_prefix: str | None = None
    umask: Annotated[int, Field(ge=0, le=0o777)] | None = None
    use_reloader: bool | None = None
    user: Id | None = None
    verify_flags: Annotated[int, Field(ge=0, le=_INT_MAX)] | None = None
    verify_mode: Annotated[int, Field(ge=0, le=2)] | None = None
    websocket_max_message_size: Positive | None = None
    websocket_ping_interval: Time | None = None
    worker_class: Literal["trio"] | None = None
    workers: Count | None = None
    wsgi_max_body_size: Positive | None = None


IN_UMBEL_TOML = {
    "h11_max_incomplete_size": "max_head",
    "h2_max_header_list_size": "max_head",
    "read_timeout": "head_timeout and body_timeout",
    "server_names": "hosts",
}
"""Hypercorn's keys for settings that are in umbel.toml, each with the key of ``[server]`` to write instead."""

WITHOUT_EFFECT = {
    "access_log_format": "Umbel writes an access log of its own; see [logs] in umbel.toml",
    "accesslog": "Umbel writes an access log of its own; see [logs] in umbel.toml",
    "application_path": "the application is an argument of the command line",
    "daemon": "the process stays in the foreground",
    "debug": "it is an option of Hypercorn's command",
    "dogstatsd_tags": "nothing is sent to statsd",
    "errorlog": "the server's messages are records; write their file into [logs.app] of umbel.toml",
    "h11_pass_raw_headers": "names of header fields are always in lower case",
    "include_server_header": "no response names the server",
    "logconfig": "the server's messages are records; see [logs] in umbel.toml",
    "logconfig_dict": "the server's messages are records; see [logs] in umbel.toml",
    "loglevel": "the server's messages are records; write the level into [logs.app] of umbel.toml",
    "quic_bind": "HTTP/3 is not served",
    "statsd_host": "nothing is sent to statsd",
    "statsd_prefix": "nothing is sent to statsd",
    "use_reloader": "there is no reloader",
    "workers": "the number of workers is the option -w of umbel serve",
    "wsgi_max_body_size": "no WSGI application is served",
}
"""Keys that have an effect only for the command ``hypercorn``, which may use the same file, each with the reason."""

FOR_TLS = ("ca_certs", "ciphers", "insecure_bind", "keyfile_password", "verify_flags", "verify_mode")
"""Keys that have an effect only beside ``certfile`` and ``keyfile``."""

FOR_UNIX_SOCKETS = ("group", "umask", "user")
"""Keys that affect only the files of bound Unix sockets."""

PATHS = ("ca_certs", "certfile", "keyfile", "pid_path")
"""Keys whose values are plain paths."""
