"""CORS rules of one route: which origins are allowed, and the fields that say so (Fetch standard, "CORS protocol").

An Origin that is allowed is safe to send back: it has no other characters than the configuration and one host label.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...core.web_origins import WebOrigins
from ..request.request_fields import Field

if TYPE_CHECKING:
    from ...config.schema.browsers import Cors

ALLOWED_ORIGIN = b"access-control-allow-origin"
FIELD_NAMES = frozenset(
    {
        ALLOWED_ORIGIN,
        b"access-control-allow-credentials",
        b"access-control-allow-headers",
        b"access-control-allow-methods",
        b"access-control-allow-private-network",
        b"access-control-expose-headers",
        b"access-control-max-age",
    }
)
"""Every response field of CORS."""
ASKED_METHOD = "Access-Control-Request-Method"
ASKED_PRIVATE_NETWORK = "Access-Control-Request-Private-Network"


class CorsRules:
    """The compiled form of a CORS table. Holds no data of a request."""

    def __init__(self, cors: Cors) -> None:
        self._origins = WebOrigins(cors.origins)
        self._methods = None if cors.methods == "route" else cors.methods
        self._credentials = cors.credentials
        self._headers = ", ".join(cors.headers).encode()
        self._exposed = ", ".join(cors.expose).encode()
        self._max_age = b"%d" % cors.max_age
        self._private_network = cors.private_network

    def allows(self, origin: str) -> bool:
        """Whether pages of ``origin``, the value of the field Origin, may read responses."""
        return self._origins.allow(origin)

    def fields(self, origin: str) -> tuple[Field, ...]:
        """The fields of a response to a request of an allowed origin."""
        fields = self._allowed(origin)
        if self._exposed:
            fields += [(b"access-control-expose-headers", self._exposed)]
        return tuple(fields)

    def preflight_fields(self, origin: str, methods: Iterable[str], *, private_network: bool) -> tuple[Field, ...]:
        """The fields of the response to a preflight of an allowed origin.

        Args:
            origin: the value of Origin.
            methods: the methods of the route.
            private_network: whether the browser asks for a request from a public to a private address.
        """
        fields = self._allowed(origin)
        allowed = methods if self._methods is None else self._methods
        fields += [(b"access-control-allow-methods", ", ".join(allowed).encode())]
        if self._headers:
            fields += [(b"access-control-allow-headers", self._headers)]
        fields += [(b"access-control-max-age", self._max_age)]
        if private_network and self._private_network:
            fields += [(b"access-control-allow-private-network", b"true")]
        return tuple(fields)

    @property
    def preflight_reads(self) -> tuple[str, ...]:
        """The request fields, beside Origin, on which the response to a preflight depends."""
        return (ASKED_METHOD, ASKED_PRIVATE_NETWORK) if self._private_network else (ASKED_METHOD,)

    def _allowed(self, origin: str) -> list[Field]:
        fields = [(ALLOWED_ORIGIN, b"*" if self._origins.every else origin.encode("latin-1"))]
        if self._credentials:
            fields += [(b"access-control-allow-credentials", b"true")]
        return fields
