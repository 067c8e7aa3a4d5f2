"""Compilation of single parts of a route. A part that is invalid becomes an entry of the compiler's ``problems``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

from ...config.schema.sections import Config, KeyPath, Route, Source
from ..request.request_template import Param, RequestField
from ..request.upstream_choice import SPLIT_KEY_ROOTS
from ..text.expression import Expression, compile_source
from ..text.field_template import compile_field
from .scope import Scope

T = TypeVar("T")


class PartCompiler:
    """Compiler of single parts of one route: expressions, parameters and header fields.

    Each function collects the mistake of its part, so that the other parts are checked too. Paths of keys are relative
    to the route, except where ``absolute`` is true.
    """

    def __init__(self, config: Config, index: int) -> None:
        self.config = config
        self.route: Route = config.routes[index]
        self.at: KeyPath = ("routes", index)
        self.problems: list[tuple[KeyPath, str]] = []
        """The mistakes found so far, each with the path of its key from the top of the configuration."""

    def problem(self, at: KeyPath, reason: str, *, absolute: bool = False) -> None:
        """Note a mistake of the key ``at``, once."""
        problem = (at if absolute else (*self.at, *at), reason)
        if problem not in self.problems:  # A call is compiled once for each of its upstreams.
            self.problems.append(problem)

    def collect(self, at: KeyPath, make: Callable[[], T], *, absolute: bool = False) -> T | None:
        """The result of ``make``. If ``make`` raises ValueError, report a problem at the key ``at`` and return None.

        ``at`` is relative to the route unless ``absolute``.
        """
        try:
            return make()
        except ValueError as error:
            self.problem(at, str(error), absolute=absolute)
            return None

    def compiled(self, at: KeyPath, source: Source, *, absolute: bool = False) -> Expression | None:
        """Compile an expression or a constant, without the names that it reads; None: it is invalid."""
        full = at if absolute else (*self.at, *at)
        return self.collect(full, lambda: compile_source(source, full, self.route.max_steps), absolute=True)

    def expression(self, at: KeyPath, text: str | None, scope: Scope) -> Expression | None:
        """Compile an expression and register its names in ``scope``; None: there is none, or it is invalid."""
        if text is None or (expression := self.compiled(at, text)) is None:
            return None
        self.collect(at, lambda: scope.read(expression))
        return expression

    def split_key(self, at: KeyPath, text: str | None, scope: Scope) -> Expression | None:
        """Compile a ``split_key``, which reads a part of the request; None: there is none, or it is invalid."""
        expression = self.expression(at, text, scope)
        if expression is not None and not {name.root for name in expression.names} <= SPLIT_KEY_ROOTS:
            self.problem(at, f"split_key reads the request only: {', '.join(sorted(SPLIT_KEY_ROOTS))}")
        elif expression is not None and not expression.names:
            self.problem(at, "split_key reads nothing of the request; name a part, such as client.ip")
        return expression

    def request_fields(self, at: KeyPath, table: Mapping[str, str], scope: Scope) -> tuple[RequestField, ...]:
        """Compile the valid ones of a table of header fields. ``at`` is absolute."""
        compiled = {
            name: self.collect((*at, name), partial(scope.resolved, partial(compile_field, name, text)), absolute=True)
            for name, text in table.items()
        }
        return tuple(RequestField.of(name, text) for name, text in compiled.items() if text is not None)

    def param(self, name: str, source: Source, where: KeyPath, scope: Scope) -> Param | None:
        """Compile a named value; None: it is invalid. ``where`` is absolute."""
        expression = self.compiled(where, source, absolute=True)
        if expression is None:
            return None
        client_parameter = self.collect(where, lambda: scope.read(expression), absolute=True)
        return None if client_parameter is None else Param(name, expression, client_parameter)

    def params(self, at: KeyPath, table: Mapping[str, Source], scope: Scope) -> Iterator[Param]:
        """Yield the valid ones of a table of named values."""
        for name, source in table.items():
            param = self.param(name, source, (*self.at, *at, name), scope)
            if param is not None:
                yield param


def with_key_paths(at: KeyPath, table: Mapping[str, Source]) -> Iterator[tuple[str, tuple[KeyPath, Source]]]:
    """Yield the entries of a table, each with the path of its key."""
    for name, source in table.items():
        yield name, ((*at, name), source)
