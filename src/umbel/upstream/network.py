"""Network: what carries the connections of the upstreams' clients in place of sockets, for tests and simulations."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from ..net.epoll import Reader
from .pool.dial import Dial


@dataclass(frozen=True, slots=True)
class Network:
    """The replacement of the system's network for all clients of an application.

    A client with a network resolves no name (a ``dns+`` URL is one replica), makes no TLS handshake and reads no TLS
    file.
    """

    reader: Reader
    """Watches the connections. It runs as long as the clients are open."""
    dial_for: Callable[[str], Dial]
    """Returns the function that makes the connections of an upstream, by the upstream's name."""
    rng_for: Callable[[str], random.Random]
    """Returns the source of all randomness of an upstream's client (pauses before retries, choice of replicas)."""
    health_checks: bool = False
    """Whether the configured health checks are made."""
