"""Interpreter of JMESPath expressions: a type error gives null, and the steps of an evaluation are bounded. Pure.

A field access, a comparison or a function gives null for a value that it does not accept, because one unexpected value
of a client or an upstream must not fail the whole answer. Only an exceeded bound is an error: the number of steps, or
the size of a text or a number that the evaluation makes. A step takes some 0.3 µs; the number of steps depends on the
values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jmespath.visitor
from jmespath.exceptions import JMESPathTypeError
from jmespath.functions import Functions

from ...core.model import Json

MAX_STEPS = 200_000
"""The most steps of one evaluation, which blocks the event loop for at most some 80 ms."""

# The steps of a function call without its arguments, and the values of a list or an object that count as one step.
_FUNCTION_STEPS = 6
_VALUES_OF_A_STEP = 4
# The characters of a text that count as one step if a function makes the text: it is copied and encoded later.
_CHARS_OF_A_STEP = 16


class TooManyStepsError(Exception):
    """An evaluation would exceed its bound of steps."""


class Interpreter(jmespath.visitor.TreeInterpreter):
    """Evaluator of expressions with a bound of steps, which holds for all evaluations by one object together.

    The evaluation of one node on one value is a step. A function takes more steps: for the values in its arguments, and
    for the text that it makes.
    """

    def __init__(self, options: jmespath.visitor.Options, steps: int = MAX_STEPS) -> None:
        super().__init__(options)
        self._call_function = (options.custom_functions or Functions()).call_function
        self._left = steps

    def visit(self, node: Mapping[str, Any], value: Json) -> Any:
        """Evaluate a node on ``value``.

        Raises:
            TooManyStepsError: no step is left.
        """
        self._left -= 1
        if self._left < 0:
            raise TooManyStepsError
        return _METHODS[node["type"]](self, node, value)

    def visit_comparator(self, node: Mapping[str, Any], value: Json) -> Any:
        """Evaluate a comparison. An order (<, <=, >, >=) gives null unless both sides are texts or both are numbers."""
        left, right = (self.visit(child, value) for child in node["children"])
        operator = node["value"]
        if operator not in ("eq", "ne") and not (
            (isinstance(left, str) and isinstance(right, str)) or (_is_number(left) and _is_number(right))
        ):
            return None
        return self.COMPARATOR_FUNC[operator](left, right)

    def visit_function_expression(self, node: Mapping[str, Any], value: Json) -> Any:
        """Evaluate a function; None if the function does not accept its arguments."""
        arguments = [self.visit(child, value) for child in node["children"]]
        self._left -= _FUNCTION_STEPS + sum(
            len(each) // _VALUES_OF_A_STEP for each in arguments if isinstance(each, (list, dict))
        )
        if self._left < 0:
            raise TooManyStepsError
        try:
            result = self._call_function(node["value"], arguments)
        except (JMESPathTypeError, TypeError):
            # The signature does not fit, or the library compares values without an order (max_by of texts and numbers).
            # An error of a function in an argument cannot come here: the visit of the argument has caught it. The
            # exceptions of exceeded bounds have other types.
            return None
        if isinstance(result, str):
            self._left -= len(result) // _CHARS_OF_A_STEP
        return result


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_METHODS = {
    name.removeprefix("visit_"): getattr(Interpreter, name) for name in dir(Interpreter) if name.startswith("visit_")
}
