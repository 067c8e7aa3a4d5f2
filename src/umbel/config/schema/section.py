"""What every table of the configuration is: frozen, strict, and closed to keys that it does not know.

The base of the schema's sections. It holds no key of its own.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

AS_TUPLE = Field(strict=False)
"""TOML arrays arrive as lists, and a frozen object keeps a tuple. Everything else is strict: "5" is not 5."""


class Section(BaseModel):
    """A table of the configuration."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True
    )
