"""The interpreter of JMESPath expressions: no value is an error, and one evaluation has a bound on what it costs.

Pure. A value that a field access, a comparison or a function cannot take gives null: one odd value of a client or of an
upstream must not decide a whole answer. What remains an error is a bound: the steps of an evaluation, and the size of
what it makes. Python takes some 0.3 µs for a step, and the values decide how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jmespath.visitor
from jmespath.exceptions import JMESPathTypeError
from jmespath.functions import Functions

from ...core.model import Json

MAX_STEPS = 200_000
"""The most steps of one evaluation: it holds the loop for some 80 ms at most."""

# What a function costs beside its arguments, and how many values of a list or an object it takes in one step.
_FUNCTION_STEPS = 6
_VALUES_OF_A_STEP = 4
# A text that an expression makes is copied, and encoded with the answer; its characters cost a step each so many.
_CHARS_OF_A_STEP = 16


class TooManyStepsError(Exception):
    """An evaluation would take more steps than it may."""


class Interpreter(jmespath.visitor.TreeInterpreter):
    """Evaluates the nodes of expressions, so many steps in all.

    A step is a node that is evaluated on a value. A function takes more: for the values of its arguments, and for the
    text that it makes.
    """

    def __init__(self, options: jmespath.visitor.Options, steps: int = MAX_STEPS) -> None:
        super().__init__(options)
        self._call_function = (options.custom_functions or Functions()).call_function
        self._left = steps

    def visit(self, node: Mapping[str, Any], value: Json) -> Any:
        """The value of a node on ``value``.

        Raises:
            TooManyStepsError: the steps are used up, now or before.
        """
        self._left -= 1
        if self._left < 0:
            raise TooManyStepsError
        return _METHODS[node["type"]](self, node, value)

    def visit_comparator(self, node: Mapping[str, Any], value: Json) -> Any:
        """The value of a comparison: null where it orders a text and a number, as of all other types."""
        left, right = (self.visit(child, value) for child in node["children"])
        operator = node["value"]
        if operator not in ("eq", "ne") and not (
            (isinstance(left, str) and isinstance(right, str)) or (_is_number(left) and _is_number(right))
        ):
            return None
        return self.COMPARATOR_FUNC[operator](left, right)

    def visit_function_expression(self, node: Mapping[str, Any], value: Json) -> Any:
        """The value of a function: null where it cannot take what it is given, as field access does."""
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
