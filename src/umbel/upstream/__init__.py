"""Upstreams: an HTTP/1.1 connection pool on trio, and the layers that make calls of it.

Every public thing here is an ``httpx.AsyncBaseTransport``, or one's error or snapshot; each works alone under any httpx
user on trio. Nothing here knows compositions, and nothing follows redirects, stores cookies or reads the environment.
"""

from typing import TYPE_CHECKING, Any

from ..policy.budget import Budget
from ..policy.ejection import EjectionRules
from .attempt import Attempt
from .balance import Balance, BalanceStatistics
from .body import Body
from .breaker import Breaker, BreakerStatistics
from .bulkhead import Bulkhead, BulkheadStatistics
from .coalesce import Coalesce, CoalesceStatistics
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

if TYPE_CHECKING:
    from .dns import DnsReplicas, DnsStatistics

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


def __getattr__(name: str) -> Any:
    """Load what looks names up only for who asks for it: dnspython takes as long to import as all the rest."""
    if name in ("DnsReplicas", "DnsStatistics"):
        from . import dns

        return getattr(dns, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
