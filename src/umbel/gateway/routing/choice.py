"""The choice among routes with the same host and path, by header fields and query (``match``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from ...composition.proxy.any_method import ANY_METHOD
from ...composition.text.expression import ExpressionError, is_false
from ...core.http.header_field import text_of
from ..request.urlencoded import Names, read_valid_fields

if TYPE_CHECKING:
    from ...composition.plan.plan import Plan
    from ...composition.text.expression import Expression
    from ...core.model import Json
    from ..request.request_fields import RequestFields


_Target = TypeVar("_Target")


class Choice(Generic[_Target]):
    """The choice among routes of one host and path that differ in ``match``: the first that a request fulfils.

    The expressions read header fields, and query parameters as texts (of repeated ones the last). A route without
    ``match`` is the last one. An expression that exceeds a bound is not fulfilled. A parameter that is not UTF-8 counts
    as absent.

    Args:
        targets: what to choose from, each with the plan of its route, in the order of the configuration.
    """

    def __init__(self, targets: Sequence[tuple[_Target, Plan]]) -> None:
        # Stable: only the default moves, and after it the default for the methods that no other route names.
        ordered = sorted(targets, key=lambda each: (each[1].match is None) + _is_for_the_rest(each[1]))
        methods = {"HEAD", *(method for _, plan in targets for method in plan.methods)}
        self._by_method = {
            method: tuple((plan.match, target) for target, plan in ordered if plan.answers(method))
            for method in methods
        }
        self._of_other_methods = tuple((plan.match, target) for target, plan in ordered if plan.methods is ANY_METHOD)
        read = {name for _, plan in targets if plan.match is not None for name in plan.match.names}
        self._headers = [each.field for each in read if each.root == "headers" and each.field is not None]
        self._params = Names(each.field for each in read if each.root == "query" and each.field is not None)

    def choose(self, method: str, fields: RequestFields, query: bytes) -> _Target | None:
        """The target for a request with ``fields`` and a raw ``query``; None: the request fulfils no ``match``."""
        get = fields.end_to_end.get
        context: dict[str, Json] = {
            "headers": {name: text_of(get(name.replace("_", "-"), "")) or None for name in self._headers},
            "query": dict(read_valid_fields(query, self._params)) if self._params else {},
        }
        for expression, target in self._by_method.get(method, self._of_other_methods):
            if expression is None or _holds(expression, context):
                return target
        return None


def _is_for_the_rest(plan: Plan) -> bool:
    return plan.match is None and plan.methods is ANY_METHOD


def _holds(expression: Expression, context: Mapping[str, Json]) -> bool:
    try:
        return not is_false(expression.evaluate(context))
    except ExpressionError:
        return False
