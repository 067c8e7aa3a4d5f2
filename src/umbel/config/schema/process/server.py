"""The section ``[server]``: limits of inbound requests, and times of a shutdown.

Settings for which Hypercorn has a key (addresses, TLS, keep-alive) are only in hypercorn.toml.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..access.limits import LimitNames
from ..section import AS_TUPLE, Section
from ..values.types import NOT_EMPTY, Network, ProbePath, ServedHost
from ..values.units import Delay, Duration, Rate, Size


class Server(Section):
    """The server: limits of inbound requests, and times of a shutdown. Each of its bounds holds in each worker
    separately; what the sections in limits say holds as they say."""

    hosts: Annotated[tuple[ServedHost, ...], AS_TUPLE, NOT_EMPTY] = ()
    """The host names that are served, with a port or for all ports. A request for another host gets 421, except GET
    and HEAD of /livez, /readyz and probes, because orchestrators use addresses. An empty list is a mistake. Default:
    all hosts."""
    trusted_proxies: Annotated[tuple[Network, ...], AS_TUPLE] = ()
    """Addresses or networks of peers whose X-Forwarded-*, Forwarded and X-Request-Id are believed. "unix": any peer
    that connects through a Unix socket."""
    allow_networks: Annotated[tuple[Network, ...], AS_TUPLE, NOT_EMPTY] = ()
    """Addresses or networks of the peers that may make requests; "unix": any peer on a Unix socket. A request of
    another peer gets 403, except GET and HEAD of /livez and /readyz. The peer is the other end of the connection:
    behind a proxy it is the proxy, whatever X-Forwarded-For says. An IPv4 address that is mapped to IPv6
    (::ffff:10.0.0.1) is the IPv4 address. An empty list is a mistake. Default: all."""
    deny_networks: Annotated[tuple[Network, ...], AS_TUPLE] = ()
    """As allow_networks, for peers that may not make requests. A peer in both lists may not."""
    limits: LimitNames = ()
    """The names of sections [limits.NAME] that every request must conform to, before those of its route, else it gets
    429. They read neither auth nor path. Probes, preflights and requests that are refused as malformed do not count.
    Default: none."""
    hooks: Literal["auto", "all", "python"] = "auto"
    """Which requests for configured routes go through Quart, so that hooks of an application in Python see them. auto:
    all, if the application has such hooks, else none; all: all; python: none. With python, a hook that may be a login
    (before_request) beside a route without auth is an error."""
    head_timeout: Duration = 5.0
    """The longest time from the first byte of a request's head to its end; then 408. Also the timeout of a TLS
    handshake."""
    body_timeout: Duration = 10.0
    """The time for a request body in addition to the time that min_body_rate gives it; then 408. Also the longest pause
    within a WebSocket message."""
    min_body_rate: Rate = 16 * 2**10
    """The lowest rate of a request body: the time for a body is its length (without one, max_body of its route) divided
    by this, plus body_timeout."""
    write_timeout: Duration = 30.0
    """The longest time in which a client must accept 64KiB of its responses; then its connection is closed."""
    max_connections: Annotated[int, Field(ge=1)] | None = None
    """The most connections, and never more than half of the file descriptors that the process may have. A further one
    gets 503. Default: half of the file descriptors, at most 10000."""
    max_in_flight: Annotated[int, Field(ge=1)] = 256
    """The most requests in progress, without those whose body is still coming and without streams. A further one gets
    503."""
    max_uploads: Annotated[int, Field(ge=1)] = 64
    """The most requests whose body is still coming. A further one waits for head_timeout, without its body being read,
    and then gets 503."""
    max_streams: Annotated[int, Field(ge=1)] = 10_000
    """The most streams: open WebSockets, and responses of proxy routes that last long. They do not count in
    max_in_flight. A further WebSocket or event stream gets 503; another response stays in max_in_flight."""
    probes: Annotated[tuple[ProbePath, ...], AS_TUPLE] = ("/livez", "/readyz")
    """Paths whose GET and HEAD requests are also served (by a small reserve) when max_connections, max_in_flight or
    memory_limit is reached. /livez and /readyz belong to the gateway, and no configured route can have them; other
    paths are for routes of an application."""
    max_head: Size = 16 * 2**10
    """The largest head of a request. A larger one gets 431."""
    max_fields: Annotated[int, Field(ge=1)] = 100
    """The most header fields of a request. More get 431."""
    max_target: Size = 8 * 2**10
    """The longest target of a request line. A longer one gets 414."""
    max_body: Size = 16 * 2**20
    """The largest request body of any route. A larger one gets 413."""
    underscore_headers: Literal["reject", "keep"] = "reject"
    """What happens to a request with an underscore in the name of a header field, which many programs read as a hyphen.
    reject: it gets 400; keep: it is served."""
    drain_delay: Delay = 0.0
    """The time for which a stopping server still accepts connections while /readyz gives 503, for load balancers that
    notice it late."""
    drain_idle: Duration = 2.0
    """The time for which an idle connection stays open after drain_delay, for a request that is on its way."""
    cancel_timeout: Duration = 5.0
    """The time for the cleanup of requests that are cancelled at the end of graceful_timeout, and for the peer's close
    frame of a WebSocket."""
    memory_limit: Size | None = None
    """The memory of a worker. Above 85 % of it connections are not kept alive; above 95 % requests get 503."""
