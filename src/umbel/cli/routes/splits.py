"""Words for the choice of an upstream by a ``split``."""

from __future__ import annotations

from ...composition.text.expression import Expression


def without_key(key: Expression) -> str:
    """Why no upstream can be named for a request that has no value for ``key``, the ``split_key``."""
    if any(name.root == "client" for name in key.names):
        return "give the address of the client with --client to see which"
    return "this request has no such value, so it is split at random"
