"""What the expressions of limits read of a request: its identity, address, path, query, fields and cookies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...core.http.header_field import text_of
from ...limits.limit_expression import counted_address
from ..request.urlencoded import Names, read_valid_fields

if TYPE_CHECKING:
    from ...composition.text.expression import Expression
    from ..request_context import RequestContext

_SCALARS = (str, int, float, bool)


class ValuesRead:
    """Reads the values of some expressions of limits, and no others. The body is never read.

    Args:
        expressions: the expressions.
    """

    __slots__ = ("_cookies", "_headers", "_params", "_roots")

    def __init__(self, expressions: Iterable[Expression]) -> None:
        read = {name for each in expressions for name in each.names}
        self._roots = frozenset(name.root for name in read)
        self._headers = [(n, n.replace("_", "-")) for n in _members(read, "headers")]
        self._cookies = _members(read, "cookies")
        self._params = Names(_members(read, "query"))

    def read(self, ctx: RequestContext, path: Mapping[str, Any]) -> dict[str, Any]:
        """The values, by name.

        Args:
            ctx: the request context; without an identity ``auth`` is null.
            path: the values of the rule's variables.
        """
        origin, roots = ctx.origin, self._roots
        context: dict[str, Any] = {}
        if "client" in roots:
            context["client"] = {"ip": counted_address(origin.client)}
        if "auth" in roots:
            context["auth"] = None if ctx.identity is None else ctx.identity.values
        if "path" in roots:
            context["path"] = {
                name: value if isinstance(value, _SCALARS) else str(value) for name, value in path.items()
            }
        if self._headers:
            get = origin.fields.end_to_end.get
            context["headers"] = {name: text_of(get(field, "")) or None for name, field in self._headers}
        if self._cookies:
            cookies = origin.fields.cookies if "cookie" in origin.fields.by_name else {}
            context["cookies"] = {name: text_of(cookies.get(name, "")) or None for name in self._cookies}
        if self._params:
            context["query"] = dict(read_valid_fields(ctx.query, self._params))
        return context


def _members(names: Iterable[Any], root: str) -> list[str]:
    return sorted({name.field for name in names if name.root == root and name.field is not None})
