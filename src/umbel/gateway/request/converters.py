"""The converters of numbers in paths: what no JSON number can be matches no route.

They take the place of werkzeug's in every map of routes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from werkzeug.routing import BaseConverter, FloatConverter, IntegerConverter, ValidationError


class _Integer(IntegerConverter):
    """werkzeug's, for texts of any length: Python reads no integer of more than 4300 digits."""

    def to_python(self, value: str) -> int:
        """The integer; a text that cannot be one matches no route."""
        try:
            number: int = super().to_python(value)
        except ValueError as error:
            raise ValidationError from error
        return number


class _Float(FloatConverter):
    """werkzeug's, for finite numbers: JSON knows no others."""

    def to_python(self, value: str) -> float:
        """The number; a text that is too large for one matches no route."""
        number: float = super().to_python(value)
        if not math.isfinite(number):
            raise ValidationError
        return number


CONVERTERS: Mapping[str, type[BaseConverter]] = {"int": _Integer, "float": _Float}
"""The converters by the word that stands in a rule."""
