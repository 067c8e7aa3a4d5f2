"""Converters of numbers in paths, in place of werkzeug's. A value that JSON cannot represent matches no route."""

from __future__ import annotations

import math
from collections.abc import Mapping

from werkzeug.routing import BaseConverter, FloatConverter, IntegerConverter, ValidationError


class _Integer(IntegerConverter):
    """Integer converter that does not match if the text is too long for ``int`` (4300 digits)."""

    def to_python(self, value: str) -> int:
        """Convert the text; ValidationError makes the route not match."""
        try:
            number: int = super().to_python(value)
        except ValueError as error:
            raise ValidationError from error
        return number


class _Float(FloatConverter):
    """Float converter that does not match if the number is not finite."""

    def to_python(self, value: str) -> float:
        """Convert the text; ValidationError makes the route not match."""
        number: float = super().to_python(value)
        if not math.isfinite(number):
            raise ValidationError
        return number


CONVERTERS: Mapping[str, type[BaseConverter]] = {"int": _Integer, "float": _Float}
"""The converters by their name in a rule."""
