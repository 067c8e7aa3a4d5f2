"""werkzeug's rule, which compiles the functions that build URLs only when one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from werkzeug.routing import Rule

_CONSTANTS = frozenset({"None", "True", "False", "__debug__"})


class LazyRule(Rule):
    """Rule that can be bound in a fraction of the time: for ``url_for`` werkzeug compiles Python code for each rule.

    No configured route is asked for its URL. That compilation is also what finds variables that no function can have
    as parameters, so ``bind`` looks for them itself. Without the private method that is overridden here, a rule would
    be bound as slowly as werkzeug's.
    """

    def compile(self) -> None:
        """Make what matching needs.

        Raises:
            ValueError: two variables have the same name, or the name of one is a constant of Python.
        """
        super().compile()
        names = [text for is_variable, text in self._trace if is_variable]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'two variables are named "{name}"')
            if name in _CONSTANTS:
                raise ValueError(f'"{name}" is a constant of Python, so no variable can be named so')

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compile_builder = super()._compile_builder
        builder: Callable[..., tuple[str, str]] | None = None

        def build(rule: Rule, /, **values: Any) -> tuple[str, str]:
            nonlocal builder
            if builder is None:
                builder = compile_builder(append_unknown)
            return builder(rule, **values)

        return build
