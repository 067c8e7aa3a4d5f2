"""The section ``[server]``: limits of what clients may send, and times of a shutdown.

What Hypercorn has a key for (addresses, TLS, keep-alive) stands in hypercorn.toml alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .section import AS_TUPLE, Section
from .types import Network, ProbePath, ServedHost
from .units import Delay, Duration, Rate, Size


class Server(Section):
    """The inbound side. Every bound holds for each request of a connection, and for each worker by itself."""

    hosts: Annotated[tuple[ServedHost, ...], AS_TUPLE] = ()
    """The host names that are served, with a port or for every port; others get 421. GET and HEAD of /livez, /readyz
    and probes are answered under any host: an orchestrator asks by address. Default: any."""
    trusted_proxies: Annotated[tuple[Network, ...], AS_TUPLE] = ()
    """Addresses or networks whose X-Forwarded-*, Forwarded and X-Request-Id are believed; "unix" is whoever connects
    through a Unix socket."""
    hooks: Literal["auto", "all", "python"] = "auto"
    """Which requests for configured routes go through Quart, where hooks of an application in Python see them. auto:
    all of them if it has such hooks, else none; all: all; python: none, hooks see only the routes in Python. A hook
    that may be a login (before_request) beside a route without auth is then an error."""
    head_timeout: Duration = 5.0
    """How long the head of a request may take, from its first byte; then 408. A TLS handshake may take no longer."""
    body_timeout: Duration = 10.0
    """How long a body may be waited for beside what its length takes at min_body_rate; then 408. Also the longest
    silence inside a WebSocket message."""
    min_body_rate: Rate = 16 * 2**10
    """A body may be waited for its length divided by this, and body_timeout; its route's max_body where no length is
    known."""
    write_timeout: Duration = 30.0
    """How long a client may be waited for in all until it has accepted 64KiB more of its answers; then it is cut."""
    max_connections: Annotated[int, Field(ge=1)] = 1000
    """Connections, never more than half of the descriptors that the process may have; one more gets 503."""
    max_in_flight: Annotated[int, Field(ge=1)] = 256
    """Requests at work, uploads not counted; one more gets 503."""
    max_uploads: Annotated[int, Field(ge=1)] = 64
    """Requests whose body is still coming; one more waits, its body unread, for head_timeout, then 503."""
    probes: Annotated[tuple[ProbePath, ...], AS_TUPLE] = ("/livez", "/readyz")
    """Paths whose GET and HEAD are answered also where max_connections, max_in_flight or memory_limit is reached, on a
    small reserve. /livez and /readyz are the gateway's own; others are for an application's routes."""
    max_head: Size = 16 * 2**10
    """The largest head of a request; over it 431."""
    max_fields: Annotated[int, Field(ge=1)] = 100
    """The most fields of a head; over it 431."""
    max_target: Size = 8 * 2**10
    """The longest target of a request line; over it 414."""
    max_body: Size = 16 * 2**20
    """The largest request body of any route; over it 413."""
    underscore_headers: Literal["reject", "keep"] = "reject"
    """Whether a request with an underscore in a field's name is refused: many programs take it for a hyphen."""
    drain_delay: Delay = 0.0
    """How long a server that was asked to stop still accepts, /readyz being 503, for load balancers that lag."""
    drain_idle: Duration = 2.0
    """How long an idle connection stays open after that, for a request that is on its way."""
    cancel_timeout: Duration = 5.0
    """For the cleanup of what is cancelled at the end of graceful_timeout, and for the answer to a WebSocket close."""
    memory_limit: Size | None = None
    """Memory of a worker: from 85 % of it on connections are not kept alive, from 95 % on requests get 503."""
