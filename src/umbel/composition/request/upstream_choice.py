"""Choice of the upstream that gets a request, by the shares of a ``split`` and the ``split_key`` of the request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...core.model import Json
from ...policy.split import Split
from ..text.expression import Expression, is_false
from ..text.functions import key_text

SPLIT_KEY_ROOTS = frozenset({"auth", "path", "query", "headers", "cookies", "client"})
"""The parts of the context that a ``split_key`` may read."""


@dataclass(frozen=True, slots=True)
class UpstreamChoice:
    """The compiled ``split`` of a call or of a proxy route."""

    split: Split
    key: Expression | None
    """The ``split_key``; None: there is none, and each request gets an upstream at random."""

    def key_of(self, context: Mapping[str, Json]) -> str | None:
        """The key of a request; None: it has none. A value that is false in JMESPath, such as null or "", is no key.

        Raises:
            ExpressionError: the evaluation exceeds a bound.
        """
        value = None if self.key is None else self.key.evaluate(context)
        return None if is_false(value) else key_text(value)

    def upstream(self, context: Mapping[str, Json], draw: Callable[[], float]) -> str:
        """The name of the upstream of one request. ``draw``: see ``Split.choose``.

        Raises:
            ExpressionError: as ``key_of``.
        """
        return self.split.choose(self.key_of(context), draw)
