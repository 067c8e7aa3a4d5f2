"""The limits of a server: what a client may send, how long it may take, and how many may come at once.

The keys of ``[server]`` in umbel.toml, as a value. An application carries its own as ``app.limits``, so that they hold
under every launcher. Nothing here acts.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, fields
from typing import Any, Literal

PROBES = ("/livez", "/readyz")
"""The paths that Umbel answers itself: whether the process runs, and whether it is ready for requests."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one server. Times are seconds, sizes bytes."""

    head_timeout: float = 5.0
    """From a request's first byte to the end of its head."""
    body_timeout: float = 10.0
    """How long a request's body may be waited for, beside the time that its length takes at ``min_body_rate``."""
    min_body_rate: float = 16 * 1024.0
    """Bytes per second; see ``body_seconds``."""
    write_timeout: float = 30.0
    """How long a client may take to accept the next 64 KiB of a response."""
    max_connections: int = 1000
    """Connections of this process; see ``connections_allowed``."""
    max_in_flight: int = 256
    """Requests of this process that an application is at work on, those aside whose body is still to come."""
    max_uploads: int = 64
    """Requests of this process whose body is being waited for."""
    probes: tuple[str, ...] = PROBES
    """Paths that are answered beyond ``max_in_flight``, ``max_connections`` and ``memory_limit``."""
    max_head: int = 16 * 1024
    """A request's head, the request line and the empty line included."""
    max_fields: int = 100
    """Header fields of a request, and trailer fields."""
    max_target: int = 8 * 1024
    """The target in the request line."""
    max_body: int = 16 * 2**20
    """A request's body."""
    underscore_headers: Literal["reject", "keep"] = "reject"
    """Whether a field name may hold an underscore, which CGI and its heirs cannot distinguish from a hyphen."""
    hosts: tuple[str, ...] = ()
    """The host names that are served; any if empty."""
    drain_delay: float = 0.0
    """How long the server goes on accepting after it was asked to stop, for load balancers that lag."""
    drain_idle: float = 2.0
    """How long an idle connection stays open after that, for a request that is on its way."""
    cancel_timeout: float = 5.0
    """For the cleanup of requests that were cancelled at the end of the grace."""
    memory_limit: int | None = None
    """Resident bytes of this process: no keep-alive from 85 % of it on, 503 from 95 %."""

    @classmethod
    def of(cls, section: Any) -> Limits:
        """The limits that the section ``[server]`` of a configuration says; its other keys are not the server's."""
        return cls(**{field.name: getattr(section, field.name) for field in fields(cls)})

    def is_probe(self, method: str, target: bytes) -> bool:
        """Whether a request without a body is a probe: a GET or HEAD of one of ``probes``."""
        return method in ("GET", "HEAD") and target.partition(b"?")[0].decode("latin-1") in self.probes

    def is_for_any_host(self, method: str, target: bytes) -> bool:
        """Whether a request is answered whatever ``hosts`` says: whoever probes asks by the process's address."""
        return self.is_probe(method, target) or (method in ("GET", "HEAD") and target.partition(b"?")[0] in _OWN_PROBES)

    def body_seconds(self, size: float) -> float:
        """How long a body of ``size`` bytes may be waited for in all: the one bound on the time of an upload."""
        return self.body_timeout + size / self.min_body_rate

    @property
    def connections_allowed(self) -> int:
        """``max_connections``, but never over half of the descriptors: a request needs some to be answered."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.max_connections if soft == resource.RLIM_INFINITY else min(self.max_connections, soft // 2)


_OWN_PROBES = frozenset(path.encode() for path in PROBES)
DEFAULT_LIMITS = Limits()


def limits_of(app: Any) -> Limits:
    """The limits that an application carries, or the defaults."""
    found = getattr(app, "limits", None)
    return found if isinstance(found, Limits) else DEFAULT_LIMITS
