"""JMESPath expressions, compiled at load with the names that they read.

The keys ``shape``, ``each``, ``when``, ``with``, ``params``, ``json`` and ``form`` hold expressions. An evaluation is
pure and never waits. A type error gives null (``interpreter.py``). An evaluation that exceeds a bound raises
``ExpressionError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import jmespath
import jmespath.parser

from ...config.schema.sections import Constant
from ...core.errors import UmbelError
from ...core.events import LogMessage, Recorder
from ...core.failure_kinds import Kind
from ...core.model import Failure, Json, RequestFacts
from .expression_mistakes import check_syntax_tree, parse_mistake
from .fault import ContextPath, Fault, bad_request, describe_parameters, fault_of, names_of, origins
from .functions import MAX_TEXT, OPTIONS, OutOfRangeError, TooLongError
from .interpreter import MAX_STEPS, Interpreter, TooManyStepsError


class ExpressionError(UmbelError):
    """An evaluation exceeded a bound. The message is for records and must not be shown to clients.

    ``where`` is the path of the configuration key that holds the expression, ``fault`` the cause.
    """

    def __init__(self, detail: str, where: tuple[str | int, ...], fault: Fault) -> None:
        super().__init__(detail)
        self.where = where
        self.fault = fault


def failed_expression(
    error: ExpressionError, where: str, facts: RequestFacts, recorder: Recorder, item: str = ""
) -> Failure:
    """The failure of a call or an answer whose expression failed.

    Its kind is bad-request if a value caused the error, else internal. If all values at fault are the client's, the
    status is 400 and nothing is recorded. Otherwise the status is that of the kind, and the error is recorded with the
    key in the configuration, and without a traceback, which would only show the code of JMESPath.

    Args:
        where: ``file:line`` of the key, or its dotted path.
        item: words for the client's list that an ``each`` goes through; empty: that list is not the client's.
    """
    fault, detail = error.fault, f"{where}: {error}"
    if client_parameter := describe_parameters(fault.names, item):
        return bad_request(detail, client_parameter, f"cannot be used: {fault.reason}")
    recorder.record(LogMessage("error", "expression.failed", detail, facts, {"where": where}))
    return bad_request(detail, "", "") if fault.names else Failure.of(Kind.INTERNAL, detail)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    ``names`` are the context paths that the expression reads. Names in filters, and on the right of pipes, projections
    and dots, are members of values and no context paths.
    """

    text: str
    names: tuple[ContextPath, ...]
    where: tuple[str | int, ...]
    """The path of the configuration key that holds the expression."""
    _parsed: Any
    steps: int = MAX_STEPS
    """The most steps of an evaluation."""

    def evaluate(self, context: Mapping[str, Json]) -> Json:
        """Evaluate the expression on ``context``.

        Raises:
            ExpressionError: the evaluation exceeds ``steps``, or makes a text or a number that is too large.
        """
        try:
            return Interpreter(OPTIONS, self.steps).visit(self._parsed.parsed, context)
        except Exception as error:
            fault = fault_of(self._parsed.parsed, context, OPTIONS, self.steps, error)
            raise ExpressionError(f"{self.text!r}: {_reason(error, self.steps)}", self.where, fault) from error

    @property
    def tree(self) -> Mapping[str, Any]:
        """The syntax tree of JMESPath's parser."""
        tree: Mapping[str, Any] = self._parsed.parsed
        return tree

    def origins(self, context: Mapping[str, Json], value: Json) -> tuple[ContextPath, ...]:
        """The context paths from which ``value`` came: the expression's result on ``context``, or a part of it."""
        return origins(self._parsed.parsed, context, OPTIONS, self.steps, value)


def compile_expression(text: str, where: tuple[str | int, ...], steps: int = MAX_STEPS) -> Expression:
    """Compile an expression whose evaluations may take at most ``steps`` steps.

    Raises:
        ValueError: the text is no JMESPath, reads the whole context (``@``, ``*`` or brackets at the root), or has a
            part that can never give a value. The message is one sentence that says what to write.
    """
    try:
        parsed = jmespath.compile(text)
    except (ValueError, RecursionError) as error:  # JMESPath's errors are ValueErrors, and so is a number too long.
        raise ValueError(parse_mistake(text, error, where)) from error
    try:
        names = tuple(dict.fromkeys(names_of(parsed.parsed)))
        check_syntax_tree(parsed.parsed)
    except RecursionError as error:
        raise ValueError(parse_mistake(text, error, where)) from error
    return Expression(text, names, where, parsed, steps)


def compile_source(source: str | Constant, where: tuple[str | int, ...], steps: int = MAX_STEPS) -> Expression:
    """Compile an expression or a constant; a constant reads nothing.

    Raises:
        ValueError: as ``compile_expression``.
    """
    if isinstance(source, str):
        return compile_expression(source, where, steps)
    literal = {"type": "literal", "value": source.value, "children": []}
    return Expression("", (), where, jmespath.parser.ParsedResult("", cast(Any, literal)))


def _reason(error: Exception, steps: int) -> str:
    """The reason for a record. It holds no value, since values may be confidential."""
    if isinstance(error, TooLongError):
        return f"it makes a text of more than {MAX_TEXT} characters"
    if isinstance(error, RecursionError):
        return "the values are nested too deeply"
    if isinstance(error, OutOfRangeError):
        return "it makes a number that is out of range"
    if isinstance(error, TooManyStepsError):
        return f"it takes more than {steps} steps on these values"
    return type(error).__name__


def is_false(value: Json) -> bool:
    """Whether a value is false in JMESPath: false, null, or an empty text, list or object. The number 0 is true."""
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)
