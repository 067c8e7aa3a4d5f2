"""Keys that send requests to a second upstream: ``split`` (some requests go to it) and ``mirror`` (it gets copies).

Calls have these keys. A table that has ``split`` and ``mirror`` yields ``traffic_constraints`` among its constraints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from .constraints import ConstraintViolation
from .section import Section
from .values.types import Method, UpstreamName
from .values.units import Ratio, Share, format_ratio

Split = dict[UpstreamName, Share]
"""Shares of the requests by upstream. The rest goes to the upstream of the table that has the split."""

_ROUNDING = 1e-9
"""What a sum of shares may exceed 1 by: percentages are no binary fractions."""


class Mirror(Section):
    """Copies of requests, which go to another upstream after the response was sent. Their responses are dropped."""

    upstream: UpstreamName
    """The upstream that gets the copies. It has limits of its own for them, with the numbers of its table."""
    share: Ratio
    """The share of the requests that are copied; each is chosen at random."""
    methods: Annotated[tuple[Method, ...], Field(strict=False, min_length=1)] = ("GET", "HEAD")
    """The methods of the requests that are copied. A copy of any other method is a second write."""


def traffic_constraints(
    upstream: str | None, split: Mapping[str, float], split_key: str | None, mirror: Mirror | None
) -> Iterator[ConstraintViolation]:
    """Yield the violations of the constraints between ``upstream``, ``split``, ``split_key`` and ``mirror``."""
    if (total := sum(split.values())) > 1 + _ROUNDING:
        yield ConstraintViolation(
            f"the shares are {format_ratio(round(total, 6))} together, and they may be at most 100%", ("split",)
        )
    if upstream is not None and upstream in split:
        yield ConstraintViolation(
            f'"{upstream}" is the upstream of this table, which gets the rest; write only other upstreams',
            ("split", "upstream"),
        )
    if split_key is not None and not split:
        yield ConstraintViolation("split_key has an effect only beside split", ("split_key", "split"))
    if mirror is not None and mirror.upstream == upstream and not split:
        yield ConstraintViolation(
            f'"{upstream}" gets the request itself, so no copy is sent to it; write another upstream',
            ("mirror", "upstream"),
        )
