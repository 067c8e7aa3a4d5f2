"""Interpreter of JMESPath expressions: type errors give null, and an evaluation has a bounded number of steps. Pure.

A value that a field access, a comparison or a function does not accept gives null: one unexpected value of a client or
of an upstream must not fail a whole answer. Only exceeded bounds are errors: the steps of an evaluation, and the size
of what it makes. A step takes some 0.3 µs of Python, and the values decide how many steps there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jmespath.visitor
from jmespath.exceptions import JMESPathTypeError
from jmespath.functions import Functions

from ...core.model import Json

MAX_STEPS = 200_000
"""The maximum steps of one evaluation: it blocks the event loop for some 80 ms at most."""

# The steps of a function beside its arguments, and how many values of a list or an object count as one step.
_FUNCTION_STEPS = 6
_VALUES_OF_A_STEP = 4
# A text that an expression makes is copied, and encoded with the answer; so many characters count as one step.
_CHARS_OF_A_STEP = 16


class TooManyStepsError(Exception):
    """An evaluation would exceed its steps."""


class Interpreter(jmespath.visitor.TreeInterpreter):
    """Evaluator of expressions with a budget of steps.

    The evaluation of a node on a value is a step. A function takes more: for the values of its arguments, and for the
    text that it makes.
    """

    def __init__(self, options: jmespath.visitor.Options, steps: int = MAX_STEPS) -> None:
        super().__init__(options)
        self._call_function = (options.custom_functions or Functions()).call_function
        self._left = steps

    def visit(self, node: Mapping[str, Any], value: Json) -> Any:
        """Evaluate a node on ``value``.

        Raises:
            TooManyStepsError: the budget is used up.
        """
        self._left -= 1
        if self._left < 0:
            raise TooManyStepsError
        return _METHODS[node["type"]](self, node, value)

    def visit_comparator(self, node: Mapping[str, Any], value: Json) -> Any:
        """Evaluate a comparison: an order is null unless both sides are texts or both are numbers."""
        left, right = (self.visit(child, value) for child in node["children"])
        operator = node["value"]
        if operator not in ("eq", "ne") and not (
            (isinstance(left, str) and isinstance(right, str)) or (_is_number(left) and _is_number(right))
        ):
            return None
        return self.COMPARATOR_FUNC[operator](left, right)

    def visit_function_expression(self, node: Mapping[str, Any], value: Json) -> Any:
        """Evaluate a function: null if it does not accept its arguments."""
        arguments = [self.visit(child, value) for child in node["children"]]
        self._left -= _FUNCTION_STEPS + sum(
            len(each) // _VALUES_OF_A_STEP for each in arguments if isinstance(each, (list, dict))
        )
        if self._left < 0:
            raise TooManyStepsError
        try:
            result = self._call_function(node["value"], arguments)
        except (JMESPathTypeError, TypeError):
            # The signature does not fit, or the library compares what has no order (max_by of texts and numbers). A
            # function within an argument has been here before, and the bounds have exceptions of their own.
            return None
        if isinstance(result, str):
            self._left -= len(result) // _CHARS_OF_A_STEP
        return result


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_METHODS = {
    name.removeprefix("visit_"): getattr(Interpreter, name) for name in dir(Interpreter) if name.startswith("visit_")
}
