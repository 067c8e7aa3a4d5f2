"""The methods of a proxy route that names none: all but CONNECT and TRACE."""

from __future__ import annotations

from typing import get_args

from ...config.schema.values.types import Method

_NEVER_PROXIED = frozenset({"CONNECT", "TRACE"})
"""Methods that speak to the gateway itself (RFC 9110 sections 9.3.6 and 9.3.8)."""
_ASKED_BY_WERKZEUG = "--"
"""The method with which ``MapAdapter.allowed_methods`` asks for the methods of a path."""


class AnyMethod(frozenset[str]):
    """A set that has every method that can be passed on. Its iteration yields the usual ones only, as for Allow.

    werkzeug uses the methods of a rule in these two ways. So a rule with this set matches any method, and CONNECT and
    TRACE get 405.
    """

    __slots__ = ()

    def __contains__(self, method: object) -> bool:
        """Whether a request with this method is passed on."""
        return method not in _NEVER_PROXIED and method != _ASKED_BY_WERKZEUG


ANY_METHOD = AnyMethod(get_args(Method))
