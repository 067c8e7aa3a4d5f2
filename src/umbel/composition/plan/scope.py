"""Resolution of the names in a route's templates and expressions, at load.

An unknown or ambiguous name is a mistake in the configuration; it never fails a request. ``compiler.py`` explains how
dependencies come from names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from ...config.schema.values.types import CONTEXT_WORDS
from ...core.http.hop_by_hop import is_hop_by_hop
from ..text.expression import Expression
from ..text.expression_mistakes import constant_hints
from ..text.fault import describe_parameter, describe_parameters
from ..text.list_reads import members_read_as_lists
from ..text.template import Resolver, Variable

T = TypeVar("T")
IDENTITY_MEMBERS = ("kind", "name", "sub", "scopes", "claims")
"""The members of ``auth`` (``core.identity.Identity.values``)."""


@dataclass(slots=True)
class RouteNames:
    """The names that a route declares, and the parts of the request that its templates and expressions read."""

    route_params: frozenset[str]
    query_params: frozenset[str]
    calls: tuple[str, ...]
    headers: dict[str, None] = field(default_factory=dict)
    """The request headers that are read, in snake case, in the order of their first use (an ordered set)."""
    uses_body: bool = False
    """Whether the body is read, whole or in part."""
    whole_body: bool = False
    """Whether the body is read as a whole, and not only single members."""
    incomplete_tables: frozenset[str] = frozenset()
    """Those of "path", "query" and "calls" that may lack names, because a part of the configuration is invalid. A name
    that is unknown in such a table is no mistake."""
    body_fields: set[str] = field(default_factory=set)
    """The members of the body that are read."""
    body_lists: set[str] = field(default_factory=set)
    """The members of the body that are read as lists."""
    cookies: dict[str, None] = field(default_factory=dict)
    """The cookies that are read (an ordered set)."""
    uses_client: bool = False
    """Whether the address of the client is read."""
    has_auth: bool = False
    """Whether the route has ``auth``, so that each of its requests has an identity."""
    uses_auth: bool = False
    """Whether the identity is read."""


@dataclass(slots=True)
class Scope:
    """The names that one call can read, or (``call`` None) the answer. It records the names that are read."""

    names: RouteNames
    call: str | None = None
    item_source: str | None = None
    """Words for the client's list that ``item`` comes from; empty: the list is not the client's; None: no ``each``."""
    bound: Mapping[str, str] = field(default_factory=dict)
    """The bound names, each with words for the client's parameters that it is made of; empty: it has other sources."""
    of_identity: set[str] = field(default_factory=set)
    """Those of the bound names and ``item`` that are made of ``auth``."""
    needs: set[str] = field(default_factory=set)
    """The calls that are read: the dependencies."""
    bound_incomplete: bool = False
    """Whether ``with`` may lack names, because a part of it is invalid."""
    reads: dict[str, None] = field(default_factory=dict)
    """The names of the client's headers, parameters and body members that are read (an ordered set)."""
    reads_body: bool = False
    """Whether the client's body is read as a whole."""

    def forget_reads(self) -> None:
        """Clear ``reads`` and ``reads_body``."""
        self.reads.clear()
        self.reads_body = False

    def read(self, expression: Expression) -> str:
        """Register the names that an expression reads.

        Returns:
            Words for the client's parameters that the expression reads, such as ``the query parameter "limit"``; empty
            if it reads anything else, or nothing.

        Raises:
            ValueError: unknown names; one message names all of them.
        """
        # Register all names, also after the first mistake: a cycle through any of them must be found.
        mistakes: list[str] = []
        self.names.body_lists.update(members_read_as_lists(expression.tree, "body"))
        instead = constant_hints(expression.tree, expression.where)
        for root, first in expression.names:
            try:
                self._use(root, first, instead.get(root, ""))
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ValueError("; and ".join(mistakes))
        return describe_parameters(expression.names, self.item_source or "")

    def resolved(self, compile_template: Callable[[Resolver], T]) -> T:
        """Call ``compile_template`` with a resolver, and return the compiled template.

        Raises:
            ValueError: the template is invalid, or names are unknown or ambiguous; one message names all of them.
        """
        mistakes: dict[str, None] = {}

        def resolve(name: str) -> Variable:
            try:
                return self.resolve(name)
            except ValueError as error:
                mistakes[str(error)] = None
                return Variable(name, None, (), "")

        template = compile_template(resolve)
        if mistakes:
            raise ValueError("; and ".join(mistakes))
        return template

    def resolve(self, name: str) -> Variable:
        """As ``_meaning``, with ``of_identity`` of the variable."""
        variable = self._meaning(name)
        root = variable.root or variable.fields[0]
        return variable._replace(of_identity=root == "auth" or root in self.of_identity)

    def _meaning(self, name: str) -> Variable:
        """Resolve a name in a template: register it, and return the place of its value in the context.

        Raises:
            ValueError: the name is unknown or ambiguous.
        """
        root, *fields = name.split(".")
        if fields:
            if root in self.bound:
                return Variable(name, None, (root, *fields), self.bound[root])
            if self.bound_incomplete and root not in CONTEXT_WORDS and root not in self.names.calls:
                return Variable(name, None, (root, *fields), "")
            self._use(root, fields[0])
            return Variable(name, root, tuple(fields), self._parameter(root, *fields))
        meanings: list[Variable] = []
        if root in self.bound:
            meanings.append(Variable(name, None, (root,), self.bound[root]))
        if root in self.names.route_params:
            self.reads[root] = None
            meanings.append(Variable(name, "path", (root,), self._parameter("path", root)))
        if root in self.names.query_params:
            self.reads[root] = None
            meanings.append(Variable(name, "query", (root,), self._parameter("query", root)))
        if root == "item" or root in self.names.calls:
            self._use(root, None)
            meanings.append(Variable(name, root, (), self._parameter(root)))
        if not meanings and (self.names.incomplete_tables or self.bound_incomplete):
            return Variable(name, None, (root,), "")
        if not meanings and root in CONTEXT_WORDS:
            raise ValueError(f'"{name}" is a table; write one of its fields, such as {name}.id')
        if not meanings:
            raise ValueError(f'"{name}" is an unknown name{self._nearest(name, self._bare())}')
        if len(meanings) > 1:
            both = " and ".join(_described(meaning) for meaning in meanings[:2])
            ways = [f"{meaning.root}.{name}" for meaning in meanings if meaning.root in ("path", "query")]
            remedy = f"write {' or '.join(ways)}, or rename one" if ways else "rename one"
            raise ValueError(f'"{name}" has two meanings, {both}; {remedy}')
        return meanings[0]

    def _parameter(self, root: str, *fields: str) -> str:
        return describe_parameter(root, fields, self.item_source or "")

    def _use(self, root: str, first: str | None, instead: str = "") -> None:
        """Register that the name ``root`` is read, and of its value only the field ``first`` (None: the whole value).

        Args:
            instead: the end of the message for an unknown name, if a constant may have been meant.

        Raises:
            ValueError: the name is unknown in this scope.
        """
        if root in self.names.calls:
            if root == self.call:
                raise ValueError(f'"{root}" names the call itself, which has no value yet; name another call')
            self.needs.add(root)
            return
        if root not in CONTEXT_WORDS:
            if "calls" in self.names.incomplete_tables:
                return
            known = [*self.names.calls, *sorted(CONTEXT_WORDS - {"item"})]
            if root in self.names.route_params | self.names.query_params:
                word = "path" if root in self.names.route_params else "query"
                raise ValueError(f'"{root}" is unknown in an expression; write {word}.{root}')
            raise ValueError(f'"{root}" is unknown{self._nearest(root, known) or instead}')
        if root == "item":
            if self.item_source is None:
                raise ValueError('"item" is known only in a call with each')
            return
        if root in self.names.incomplete_tables:
            return
        if root == "path" and first is not None and first not in self.names.route_params:
            raise ValueError(f'the route has no "{first}" in its path{self._nearest(first, self.names.route_params)}')
        if root == "query" and first is not None and first not in self.names.query_params:
            raise ValueError(
                f'the route declares no query parameter "{first}"{self._nearest(first, self.names.query_params)}'
            )
        if root == "headers":
            if first is None:
                raise ValueError("name one header, such as headers.x_tenant: Vary must list each header that is read")
            if first != first.lower():
                raise ValueError(f"write the name of a header in lower case: headers.{first.lower()}")
            if is_hop_by_hop(first.replace("_", "-").encode()):
                raise ValueError(f'"{first}" belongs to one connection and is always null here; remove headers.{first}')
            self.names.headers[first] = None
        if root == "cookies":
            if first is None:
                raise ValueError('name one cookie, such as cookies.session or cookies."__Host-id"')
            self.names.cookies[first] = self.names.headers["cookie"] = self.reads["cookie"] = None
        if root in ("client", "auth"):
            self._use_client(root, first)
        if root == "body":
            self.names.uses_body = True
            if first is None:
                self.names.whole_body = True
            else:
                self.names.body_fields.add(first)
            self.reads_body |= first is None
        if first is not None:
            self.reads[first] = None

    def _use_client(self, root: str, first: str | None) -> None:
        """Register that the client's address (``client``) or identity (``auth``) is read.

        Raises:
            ValueError: the route has no ``auth``, or there is no member ``first``.
        """
        if root == "client":
            if first != "ip":
                raise ValueError("write client.ip: of the client only the address is known")
            self.names.uses_client = True
            return
        if not self.names.has_auth:
            raise ValueError('"auth" is known only in a route with auth, such as auth = ["users"]')
        if first is not None and first not in IDENTITY_MEMBERS:
            hint = self._nearest(first, IDENTITY_MEMBERS) or f"; a claim of a token is auth.claims.{first}"
            raise ValueError(f'auth has no "{first}", only {", ".join(IDENTITY_MEMBERS)}{hint}')
        self.names.uses_auth = True

    def _bare(self) -> list[str]:
        return [*self.bound, *self.names.route_params, *self.names.query_params, *self.names.calls]

    @staticmethod
    def _nearest(name: str, known: Iterable[str]) -> str:
        near = difflib.get_close_matches(name, list(known), n=1)
        return f'; did you mean "{near[0]}"?' if near else ""


def _described(variable: Variable) -> str:
    if variable.root is None:
        return "a name in with"
    if variable.root == "path":
        return "a route parameter"
    if variable.root == "query":
        return "a query parameter"
    return "the item of each" if variable.root == "item" else "a call"
