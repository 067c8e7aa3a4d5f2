"""Limits of a server as a value: the keys of ``[server]`` in umbel.toml.

An application may carry its limits as ``app.limits``, so that they hold however it is launched.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, fields
from typing import Any, Literal

from ...core.http.probe_paths import PROBES

CONNECTIONS_MAX = 10_000
"""Most connections of a process without ``max_connections``, however many descriptors it may have."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server. Times are in seconds, sizes in bytes."""

    head_timeout: float = 5.0
    """Time from the first byte of a request head to its end; for a connection's first head, from the accept. It also
    bounds the wait for an upload slot."""
    body_timeout: float = 10.0
    """Time that the waits for a request body may take in sum, beyond what its length takes at ``min_body_rate``. It
    also bounds each silence within a WebSocket message."""
    min_body_rate: float = 16 * 1024.0
    """Bytes per second; see ``body_seconds``."""
    write_timeout: float = 30.0
    """Time in which a client must accept each 64 KiB of a response."""
    max_connections: int | None = None
    """Most open connections of this process; None: the default of ``connections_allowed``."""
    max_in_flight: int = 256
    """Most requests in flight of this process."""
    max_streams: int = 10_000
    """Most streams of this process: requests that count neither as in flight nor as uploads, because they last long."""
    max_uploads: int = 64
    """Most requests of this process whose body the server waits for. They are not in flight."""
    probes: tuple[str, ...] = PROBES
    """Paths of probes, which are answered beyond ``max_in_flight``, ``max_connections`` and ``memory_limit``."""
    max_head: int = 16 * 1024
    """Largest request head: in HTTP/1.1 with the request line and the empty line, in HTTP/2 all names and values. It
    also bounds a trailer section."""
    max_fields: int = 100
    """Most header fields of a request, and most fields of its trailer section."""
    max_target: int = 8 * 1024
    """Largest request target."""
    max_body: int = 16 * 2**20
    """Largest request body."""
    underscore_headers: Literal["reject", "keep"] = "reject"
    """For a field name with an underscore, which CGI cannot distinguish from a hyphen: refuse the request with 400, or
    keep the field."""
    hosts: tuple[str, ...] = ()
    """The host names that are served; a request for another one gets 421. Empty: all are served."""
    allow_networks: tuple[str, ...] = ()
    """Networks of the peers that may make requests, with ``unix`` for Unix sockets. Empty: all may."""
    deny_networks: tuple[str, ...] = ()
    """Networks of the peers that may not make requests; see ``core.networks.Admission``."""
    drain_delay: float = 0.0
    """Time in which a stopping server still accepts, so that load balancers can see that it is not ready."""
    drain_idle: float = 2.0
    """Time for which an idle connection stays open during a drain, because a request may be on its way."""
    cancel_timeout: float = 5.0
    """Time for the cleanup of requests that are cancelled at the end of a drain. It also bounds the wait for a client's
    WebSocket close frame, and for a WebSocket application to return after its disconnect."""
    memory_limit: int | None = None
    """Resident bytes of this process: from 85 % no keep-alive, from 95 % requests are refused with 503."""

    @classmethod
    def of(cls, section: Any) -> Limits:
        """The limits in the section ``[server]`` of a configuration, whose other keys are ignored."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})

    def is_probe(self, method: str, target: bytes) -> bool:
        """Whether a request without a body is a probe: a GET or HEAD of one of ``probes``. The body is not checked."""
        return method in ("GET", "HEAD") and target.partition(b"?")[0].decode("latin-1") in self.probes

    def is_for_any_host(self, method: str, target: bytes) -> bool:
        """Whether a request is answered whatever its host. Probes are: they name an address, not a served host."""
        return self.is_probe(method, target) or is_own_probe(method, target)

    def body_seconds(self, size: float) -> float:
        """Seconds that the waits for a body of ``size`` bytes may take in sum."""
        return self.body_timeout + size / self.min_body_rate

    @property
    def connections_allowed(self) -> int:
        """``max_connections``, but at most half of the process's file descriptors: upstreams need the other half.

        Without ``max_connections``: that half, but at most ``CONNECTIONS_MAX``.
        """
        wanted = CONNECTIONS_MAX if self.max_connections is None else self.max_connections
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft // 2)


_OWN_PROBES = frozenset(path.encode() for path in PROBES)


def is_own_probe(method: str, target: bytes) -> bool:
    """Whether a request is a GET or HEAD of one of Umbel's own probes, which any peer may make with any Host."""
    return method in ("GET", "HEAD") and target.partition(b"?")[0] in _OWN_PROBES


DEFAULT_LIMITS = Limits()


def limits_of(app: Any) -> Limits:
    """``app.limits`` if that is a ``Limits``, else the default limits."""
    found = getattr(app, "limits", None)
    return found if isinstance(found, Limits) else DEFAULT_LIMITS
