"""Upstreams: an HTTP/1.1 connection pool on trio, and the layers that make calls of it.

Every public thing here is an ``httpx.AsyncBaseTransport``, or one's error or snapshot; each works alone under any httpx
user on trio. Nothing here knows compositions, and nothing follows redirects, stores cookies or reads the environment.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..policy.budget import Budget
    from ..policy.ejection import EjectionRules
    from .attempt import Attempt
    from .balance import Balance, BalanceStatistics
    from .body import Body
    from .breaker import Breaker, BreakerStatistics
    from .bulkhead import Bulkhead, BulkheadStatistics
    from .coalesce import Coalesce, CoalesceStatistics
    from .dns import DnsReplicas, DnsStatistics
    from .errors import (
        AddressRefused,
        BadRequest,
        BreakerOpen,
        BudgetSpent,
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
    from .health import Health, HealthStatistics
    from .hedge import Hedge, HedgeStatistics
    from .http1 import Limits
    from .pool import Pool, PoolStatistics
    from .replicas import JoinedReplicas, ReplicaSource
    from .retry import Retry, RetryStatistics
    from .slots import SlotStatistics
    from .stack import Stack, StackStatistics, build
    from .timeout import Timeout
    from .tls import client_context

__all__ = [
    "AddressRefused",
    "Attempt",
    "BadRequest",
    "Balance",
    "BalanceStatistics",
    "Body",
    "Breaker",
    "BreakerOpen",
    "BreakerStatistics",
    "Budget",
    "BudgetSpent",
    "Bulkhead",
    "BulkheadStatistics",
    "Coalesce",
    "CoalesceStatistics",
    "ConnectFailed",
    "ConnectTimedOut",
    "ConnectionReset",
    "DnsReplicas",
    "DnsStatistics",
    "EjectionRules",
    "Health",
    "HealthStatistics",
    "Hedge",
    "HedgeStatistics",
    "JoinedReplicas",
    "Limits",
    "Malformed",
    "NameFailed",
    "NameTimedOut",
    "Overflow",
    "Pool",
    "PoolStatistics",
    "ReadTimedOut",
    "ReplicaSource",
    "Retry",
    "RetryStatistics",
    "SlotStatistics",
    "Stack",
    "StackStatistics",
    "Timeout",
    "TlsFailed",
    "TlsTimedOut",
    "TooBig",
    "WriteTimedOut",
    "build",
    "client_context",
]

_HOMES = {
    "AddressRefused": ".errors",
    "Attempt": ".attempt",
    "BadRequest": ".errors",
    "Balance": ".balance",
    "BalanceStatistics": ".balance",
    "Body": ".body",
    "Breaker": ".breaker",
    "BreakerOpen": ".errors",
    "BreakerStatistics": ".breaker",
    "Budget": "..policy.budget",
    "BudgetSpent": ".errors",
    "Bulkhead": ".bulkhead",
    "BulkheadStatistics": ".bulkhead",
    "Coalesce": ".coalesce",
    "CoalesceStatistics": ".coalesce",
    "ConnectFailed": ".errors",
    "ConnectTimedOut": ".errors",
    "ConnectionReset": ".errors",
    "DnsReplicas": ".dns",
    "DnsStatistics": ".dns",
    "EjectionRules": "..policy.ejection",
    "Health": ".health",
    "HealthStatistics": ".health",
    "Hedge": ".hedge",
    "HedgeStatistics": ".hedge",
    "JoinedReplicas": ".replicas",
    "Limits": ".http1",
    "Malformed": ".errors",
    "NameFailed": ".errors",
    "NameTimedOut": ".errors",
    "Overflow": ".errors",
    "Pool": ".pool",
    "PoolStatistics": ".pool",
    "ReadTimedOut": ".errors",
    "ReplicaSource": ".replicas",
    "Retry": ".retry",
    "RetryStatistics": ".retry",
    "SlotStatistics": ".slots",
    "Stack": ".stack",
    "StackStatistics": ".stack",
    "Timeout": ".timeout",
    "TlsFailed": ".errors",
    "TlsTimedOut": ".errors",
    "TooBig": ".errors",
    "WriteTimedOut": ".errors",
    "build": ".stack",
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
