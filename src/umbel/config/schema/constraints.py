"""Constraints between the keys of one table: how a section states them, and the error for broken ones.

A section states its constraints in a generator function that yields a ``ConstraintViolation`` for each broken one. It
applies the function with ``model_validator(mode="after")(enforce(function))``. pydantic calls such a validator only if
each key of the table is valid by itself. Each violation says what to write instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from pydantic import ValidationInfo


class ConstraintViolation(NamedTuple):
    """A constraint between keys that a table breaks, with the reason."""

    reason: str
    keys: tuple[str, ...]
    """The keys that the constraint is about, as files spell them. The problem is reported at the first one."""


class BrokenConstraintsError(ValueError):
    """A table breaks constraints; ``violations`` holds all of them."""

    def __init__(self, violations: tuple[ConstraintViolation, ...]) -> None:
        super().__init__("; ".join(violation.reason for violation in violations))
        self.violations = violations


_Table = TypeVar("_Table")

NO_CONSTRAINTS: Mapping[str, bool] = {"constraints": False}
"""The context of a pydantic validation that does not check the constraints between keys."""


def enforce(
    constraints: Callable[[_Table], Iterator[ConstraintViolation]],
) -> Callable[[_Table, ValidationInfo], _Table]:
    """Make a pydantic validator that raises ``BrokenConstraintsError`` if the table breaks any of ``constraints``."""

    def check(table: _Table, info: ValidationInfo) -> _Table:
        if info.context is not NO_CONSTRAINTS and (broken := tuple(constraints(table))):
            raise BrokenConstraintsError(broken)
        return table

    return check
