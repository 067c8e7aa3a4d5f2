"""HTTP/1.1 clients on trio: calls to an upstream with policies such as retries, and a connection pool without policies.

- ``Transport``: one upstream with its policies, as a transport for httpx.
- ``Pool``: connections to any URL, without policies, as a transport for httpx.
- ``Client``: one upstream with its policies, for the calls of compositions; ``build`` makes it from the configuration.

``client.py`` explains the order of the policies. Their decisions are in ``umbel.policy``. ``calls/`` has calls and
attempts, ``pool/`` has connections, ``replicas/`` has addresses, health checks and load balancing. The package follows
no redirects, stores no cookies and reads no environment variables.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..http1.response_reader import Limits
    from ..policy.replicas.ejection import EjectionRules
    from ..policy.retry_budget import Budget
    from .calls.coalesce import CoalesceStatistics
    from .client import (
        BreakerRules,
        BulkheadStatistics,
        Client,
        ClientStatistics,
        HealthRules,
        HedgeStatistics,
        Policies,
        RetryStatistics,
        StreamStatistics,
    )
    from .errors import (
        AddressRefused,
        BadRequest,
        BreakerOpen,
        BudgetSpent,
        CallTimedOut,
        ConnectFailed,
        ConnectionReset,
        ConnectTimedOut,
        Malformed,
        NameFailed,
        NameTimedOut,
        Overflow,
        ReadTimedOut,
        TlsFailed,
        TlsTimedOut,
        TooBig,
        WriteTimedOut,
    )
    from .from_config import build
    from .pool.pool import Pool, PoolStatistics
    from .pool.tls import client_context
    from .queue_limiter import SlotStatistics
    from .replicas.balance import BalanceStatistics
    from .replicas.dns import DnsReplicas, DnsStatistics
    from .replicas.health import HealthStatistics
    from .replicas.sources import JoinedReplicas, ReplicaSource
    from .transport import Hedge, Retry, Transport

__all__ = [
    "AddressRefused",
    "BadRequest",
    "BalanceStatistics",
    "BreakerOpen",
    "BreakerRules",
    "Budget",
    "BudgetSpent",
    "BulkheadStatistics",
    "CallTimedOut",
    "Client",
    "ClientStatistics",
    "CoalesceStatistics",
    "ConnectFailed",
    "ConnectTimedOut",
    "ConnectionReset",
    "DnsReplicas",
    "DnsStatistics",
    "EjectionRules",
    "HealthRules",
    "HealthStatistics",
    "Hedge",
    "HedgeStatistics",
    "JoinedReplicas",
    "Limits",
    "Malformed",
    "NameFailed",
    "NameTimedOut",
    "Overflow",
    "Policies",
    "Pool",
    "PoolStatistics",
    "ReadTimedOut",
    "ReplicaSource",
    "Retry",
    "RetryStatistics",
    "SlotStatistics",
    "StreamStatistics",
    "TlsFailed",
    "TlsTimedOut",
    "TooBig",
    "Transport",
    "WriteTimedOut",
    "build",
    "client_context",
]

_HOMES = {
    "AddressRefused": ".errors",
    "BadRequest": ".errors",
    "BalanceStatistics": ".replicas.balance",
    "BreakerOpen": ".errors",
    "BreakerRules": ".client",
    "Budget": "..policy.retry_budget",
    "BudgetSpent": ".errors",
    "BulkheadStatistics": ".client",
    "CallTimedOut": ".errors",
    "Client": ".client",
    "ClientStatistics": ".client",
    "CoalesceStatistics": ".calls.coalesce",
    "ConnectFailed": ".errors",
    "ConnectTimedOut": ".errors",
    "ConnectionReset": ".errors",
    "DnsReplicas": ".replicas.dns",
    "DnsStatistics": ".replicas.dns",
    "EjectionRules": "..policy.replicas.ejection",
    "HealthRules": ".client",
    "HealthStatistics": ".replicas.health",
    "Hedge": ".transport",
    "HedgeStatistics": ".client",
    "JoinedReplicas": ".replicas.sources",
    "Limits": "..http1.response_reader",
    "Malformed": ".errors",
    "NameFailed": ".errors",
    "NameTimedOut": ".errors",
    "Overflow": ".errors",
    "Policies": ".client",
    "Pool": ".pool.pool",
    "PoolStatistics": ".pool.pool",
    "ReadTimedOut": ".errors",
    "ReplicaSource": ".replicas.sources",
    "Retry": ".transport",
    "RetryStatistics": ".client",
    "SlotStatistics": ".queue_limiter",
    "StreamStatistics": ".client",
    "TlsFailed": ".errors",
    "TlsTimedOut": ".errors",
    "TooBig": ".errors",
    "Transport": ".transport",
    "WriteTimedOut": ".errors",
    "build": ".from_config",
    "client_context": ".pool.tls",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used (PEP 562), so that importing the package is quick."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value
