"""What the names of a route mean: the one context that templates and expressions share.

Used by the plan while it compiles. A name that means nothing, or two things, is an error here and never at a request.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..config.rules import CONTEXT_WORDS
from .expression import Expression
from .template import Variable

CLIENT_WORDS = frozenset({"path", "query", "headers", "body"})


@dataclass(slots=True)
class Names:
    """The names that one route knows, and what its plan turned out to use of them."""

    route_params: frozenset[str]
    query_params: frozenset[str]
    calls: tuple[str, ...]
    headers: dict[str, None] = field(default_factory=dict)
    """Request headers that the plan reads, in snake case, in the order of their first use."""
    uses_body: bool = False


@dataclass(slots=True)
class Scope:
    """The names as one call sees them (``call`` None: as the answer does). Collects what the call needs."""

    names: Names
    call: str | None = None
    item_client: bool | None = None
    """Whether ``{item}`` is the client's; None where there is no item."""
    bound: Mapping[str, bool] = field(default_factory=dict)
    """The names of ``with``, and whether each is the client's."""
    needs: set[str] = field(default_factory=set)

    def read(self, expression: Expression) -> bool:
        """Note what an expression reads.

        Returns:
            Whether all of it is the client's.

        Raises:
            ValueError: it names something unknown.
        """
        # All of them are noted and judged, so no short cut at the first.
        whose: list[bool] = []
        mistakes: list[str] = []
        for root, first in expression.names:
            try:
                whose.append(self._use(root, first))
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ValueError("; and ".join(mistakes))
        return all(whose)

    def resolve(self, name: str) -> Variable:
        """What a name in a template means.

        Raises:
            ValueError: it means nothing, or two things.
        """
        root, *fields = name.split(".")
        if fields:
            if root in self.bound:
                return Variable(name, None, (root, *fields), self.bound[root])
            return Variable(name, root, tuple(fields), self._use(root, fields[0]))
        meanings: list[Variable] = []
        if root in self.bound:
            meanings.append(Variable(name, None, (root,), self.bound[root]))
        if root in self.names.route_params:
            meanings.append(Variable(name, "path", (root,), True))
        if root in self.names.query_params:
            meanings.append(Variable(name, "query", (root,), True))
        if root == "item" or root in self.names.calls:
            meanings.append(Variable(name, root, (), self._use(root, None)))
        if not meanings and root in CONTEXT_WORDS:
            raise ValueError(f'"{name}" is a table; name one field of it, such as {name}.id')
        if not meanings:
            raise ValueError(f'"{name}" names nothing here{self._nearest(name, self._bare())}')
        if len(meanings) > 1:
            both = " and ".join(_described(meaning) for meaning in meanings[:2])
            raise ValueError(f'"{name}" means two things: {both}; write which, such as path.{name} or query.{name}')
        return meanings[0]

    def _use(self, root: str, first: str | None) -> bool:
        if root in self.names.calls:
            if root == self.call:
                raise ValueError(f'"{root}" names the call itself')
            self.needs.add(root)
            return False
        if root not in CONTEXT_WORDS:
            known = [*self.names.calls, *sorted(CONTEXT_WORDS - {"item"})]
            if root in self.names.route_params | self.names.query_params:
                word = "path" if root in self.names.route_params else "query"
                raise ValueError(f'"{root}" is unknown in an expression; write {word}.{root}')
            raise ValueError(f'"{root}" is unknown{self._nearest(root, known)}')
        if root == "item":
            if self.item_client is None:
                raise ValueError('"item" is known only in a call with each')
            return self.item_client
        if root == "path" and first is not None and first not in self.names.route_params:
            raise ValueError(f'the route has no "{first}" in its path{self._nearest(first, self.names.route_params)}')
        if root == "query" and first is not None and first not in self.names.query_params:
            raise ValueError(
                f'the route declares no query parameter "{first}"{self._nearest(first, self.names.query_params)}'
            )
        if root == "headers":
            if first is None:
                raise ValueError("name the header, such as headers.x_tenant: the answer varies by each that is read")
            if first != first.lower():
                raise ValueError(f"headers are named in lower case here: headers.{first.lower()}")
            self.names.headers[first] = None
        if root == "body":
            self.names.uses_body = True
        return True

    def _bare(self) -> list[str]:
        return [*self.bound, *self.names.route_params, *self.names.query_params, *self.names.calls]

    @staticmethod
    def _nearest(name: str, known: Iterable[str]) -> str:
        near = difflib.get_close_matches(name, list(known), n=1)
        return f'; did you mean "{near[0]}"?' if near else ""


def _described(variable: Variable) -> str:
    if variable.root is None:
        return "a name of with"
    if variable.root == "path":
        return "a route parameter"
    if variable.root == "query":
        return "a query parameter"
    return "the item of each" if variable.root == "item" else "a call"
