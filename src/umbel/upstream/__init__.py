"""Upstreams: an HTTP/1.1 connection pool on trio, and calls with policies made over it.

``Transport`` is an upstream with its policies for any httpx user on trio; ``Pool`` is the connections alone, for any
URL; ``Client`` is what compositions call. Nothing here knows compositions, and nothing follows redirects, stores
cookies or reads the environment.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..http1.response_reader import Limits
    from ..policy.replicas.ejection import EjectionRules
    from ..policy.retry_budget import Budget
    from .balance import BalanceStatistics
    from .client import (
        BreakerRules,
        BulkheadStatistics,
        Client,
        ClientStatistics,
        HealthRules,
        HedgeStatistics,
        Policies,
        RetryStatistics,
    )
    from .coalesce import CoalesceStatistics
    from .dns import DnsReplicas, DnsStatistics
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
    from .health import HealthStatistics
    from .pool import Pool, PoolStatistics
    from .replicas import JoinedReplicas, ReplicaSource
    from .slots import SlotStatistics
    from .tls import client_context
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
    "BalanceStatistics": ".balance",
    "BreakerOpen": ".errors",
    "BreakerRules": ".client",
    "Budget": "..policy.retry_budget",
    "BudgetSpent": ".errors",
    "BulkheadStatistics": ".client",
    "CallTimedOut": ".errors",
    "Client": ".client",
    "ClientStatistics": ".client",
    "CoalesceStatistics": ".coalesce",
    "ConnectFailed": ".errors",
    "ConnectTimedOut": ".errors",
    "ConnectionReset": ".errors",
    "DnsReplicas": ".dns",
    "DnsStatistics": ".dns",
    "EjectionRules": "..policy.replicas.ejection",
    "HealthRules": ".client",
    "HealthStatistics": ".health",
    "Hedge": ".transport",
    "HedgeStatistics": ".client",
    "JoinedReplicas": ".replicas",
    "Limits": "..http1.response_reader",
    "Malformed": ".errors",
    "NameFailed": ".errors",
    "NameTimedOut": ".errors",
    "Overflow": ".errors",
    "Policies": ".client",
    "Pool": ".pool",
    "PoolStatistics": ".pool",
    "ReadTimedOut": ".errors",
    "ReplicaSource": ".replicas",
    "Retry": ".transport",
    "RetryStatistics": ".client",
    "SlotStatistics": ".slots",
    "TlsFailed": ".errors",
    "TlsTimedOut": ".errors",
    "TooBig": ".errors",
    "Transport": ".transport",
    "WriteTimedOut": ".errors",
    "build": ".from_config",
    "client_context": ".tls",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home (PEP 562), so that a worker that calls no upstream starts in half the time."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value
