"""The base class of the schema's sections: frozen, strict, and without unknown keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


def as_list(value: object) -> object:
    """Make a list of a single name."""
    return [value] if isinstance(value, str) else value


AS_TUPLE = Field(strict=False)
"""Accepts a list for a tuple, since TOML has lists and a section is frozen. All else is strict: "5" is not 5."""


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True, defer_build=True)
