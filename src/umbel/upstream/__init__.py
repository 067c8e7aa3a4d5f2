"""Upstreams: an HTTP/1.1 connection pool on trio, and the layers that make calls of it.

Every public thing here is an ``httpx.AsyncBaseTransport``, or one's error or snapshot; each works alone under any httpx
user on trio. Nothing here knows compositions, and nothing follows redirects, stores cookies or reads the environment.
"""

from .attempt import Attempt
from .balance import Balance, BalanceStatistics
from .body import Body
from .bulkhead import Bulkhead, BulkheadStatistics
from .errors import (
    AddressRefused,
    BadRequest,
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
from .http1 import Limits
from .pool import Pool, PoolStatistics
from .slots import SlotStatistics
from .stack import Stack, StackStatistics, build
from .tls import client_context

__all__ = [
    "AddressRefused",
    "Attempt",
    "BadRequest",
    "Balance",
    "BalanceStatistics",
    "Body",
    "BudgetSpent",
    "Bulkhead",
    "BulkheadStatistics",
    "ConnectFailed",
    "ConnectTimedOut",
    "ConnectionReset",
    "Limits",
    "Malformed",
    "NameFailed",
    "NameTimedOut",
    "Overflow",
    "Pool",
    "PoolStatistics",
    "ReadTimedOut",
    "SlotStatistics",
    "Stack",
    "StackStatistics",
    "TlsFailed",
    "TlsTimedOut",
    "TooBig",
    "WriteTimedOut",
    "build",
    "client_context",
]
