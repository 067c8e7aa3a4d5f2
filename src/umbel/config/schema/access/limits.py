"""The sections ``[limits.NAME]``: how many requests are admitted for each key."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ..section import Section, as_list
from ..values.types import ExpressionText, UpstreamName
from ..values.units import Duration

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)/([smhd])")
_DENOMINATOR_MAX = 1_000_000


class RequestRate(NamedTuple):
    """A rate of requests."""

    amount: Fraction
    seconds: int

    @property
    def per_second(self) -> float:
        """The requests per second."""
        return float(self.amount / self.seconds)

    @property
    def quota(self) -> tuple[int, int]:
        """The rate as whole requests in whole seconds."""
        return self.amount.numerator, self.seconds * self.amount.denominator


def parse_request_rate(text: str) -> RequestRate:
    """Parse a rate such as ``100/m``.

    Raises:
        ValueError: the text is no rate, or the rate is zero.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(
            f'"{text}" is not a rate of requests; write a number per s, m, h or d, such as "100/m" or "0.5/s"'
        )
    amount = Fraction(match[1]).limit_denominator(_DENOMINATOR_MAX)
    if not amount:
        raise ValueError("a rate of requests must be above zero; a limit of zero would admit none")
    return RequestRate(amount, _SECONDS[match[2]])


def _checked_rate(value: str) -> str:
    parse_request_rate(value)
    return value


LimitRate = Annotated[
    str,
    AfterValidator(_checked_rate),
    WithJsonSchema(
        {"type": "string", "title": "rate of requests", "pattern": f"^{_RATE.pattern}$", "examples": ["100/m", "0.5/s"]}
    ),
]
LimitName = UpstreamName
"""The name of a section ``[limits.NAME]``."""
LimitNames = Annotated[
    tuple[LimitName, ...],
    Field(strict=False),
    BeforeValidator(as_list, json_schema_input_type=LimitName | tuple[LimitName, ...]),
]
"""The names of sections [limits.NAME]; a single name may stand without a list."""


class Limit(Section):
    """A limit of requests: each key may spend rate in the long run, and burst at once (GCRA). A request over the limit
    gets 429 and does not wait."""

    key: ExpressionText
    """A JMESPath expression over auth, client, path, query, headers and cookies whose value says for whom a request
    counts, such as "auth.sub || client.ip". Requests without a value count together. client.ip of an IPv6 client
    is its network of 64 bits. A key that reads auth is decided after authentication, any other one before it."""
    rate: LimitRate
    """What each key may spend in the long run: units per s, m, h or d, such as "100/m" or "0.5/s"."""
    burst: Annotated[int, Field(ge=1, le=10**9)]
    """The units that a key may spend at once, after a time without requests."""
    cost: ExpressionText | None = None
    """A JMESPath expression over the same names: the units that a request spends. 0: it is free; more than burst: it is
    never admitted; no number, or a negative one: it spends 1. Default: 1."""
    shared: Literal["machine", "worker"] = "machine"
    """Whose requests count together. machine: those of all workers of a master (`umbel serve -w N`), which adds up what
    they spend; no request waits for it. worker: those of one worker process, so that N workers admit N times the rate.
    Without a master each process counts alone."""
    sync: Annotated[Duration, Field(ge=0.01, le=60)] = 0.1
    """The time after which all workers know what one of them has spent, apart from the way of the messages. Until then
    each other worker may admit what it would admit alone; the excess is a debt that all pay off."""
    max_keys: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """The most keys that are remembered. Beyond it, keys that have nothing spent any more are forgotten first."""
