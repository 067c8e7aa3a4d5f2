"""Hosts: the host names that a server serves, and the check of the Host field (RFC 9110 section 7.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ...core.http.host import HOST_PATTERN, PORT_MAX, one_form, split_host
from ...net.bounded_cache import BoundedCache
from ..response.error_response import ErrorResponse
from .head_errors import HeadError

_WELL_FORMED = re.compile(HOST_PATTERN.encode())
_KNOWN_MAX, _KNOWN_SIZE = 256, 261
"""Entries of the cache, and bytes of the longest: a name of 255 bytes and a port."""

NOT_SERVED = ErrorResponse(421, "This host is not served here.")


class Hosts:
    """The hosts that are served; all if ``names`` is empty. A name without a port is served on every port.

    All spellings of a host are equal (``core.http.host.one_form``), in ``names`` as in requests. Accepted values are
    cached, because clients repeat them.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(map(one_form, names))
        self._good: BoundedCache[bytes, bool] = BoundedCache(_KNOWN_MAX, _KNOWN_SIZE)

    def serve(self, values: Sequence[bytes], *, required: bool) -> bool:
        """Whether a request with these values of Host is served. Without a value: True, unless ``required``.

        Raises:
            HeadError: 400, there is not exactly one value, or it is malformed.
        """
        if not values and not required:
            return True
        if len(values) != 1:
            raise HeadError(ErrorResponse(400, "The request must have exactly one Host field."))
        value = values[0]
        if value in self._good.entries:
            return True
        host, port = _parts(value)
        if self._names and host not in self._names and f"{host}:{port}" not in self._names:
            return False
        self._good.add(value, True)
        return True

    @staticmethod
    def are_equal(one: bytes, other: bytes) -> bool:
        """Whether two authorities name the same host and port. A default port (80, 443) may be missing in one.

        Raises:
            HeadError: 400, one of them is malformed.
        """
        (host, port), (other_host, other_port) = _parts(one), _parts(other)
        return host == other_host and (
            port == other_port or {port, other_port} <= {"", "80"} or {port, other_port} <= {"", "443"}
        )


def _parts(value: bytes) -> tuple[str, str]:
    """Host and port in the form of ``split_host``; raises as ``Hosts.are_equal``."""
    match = _WELL_FORMED.fullmatch(value)
    if match is None or int(match[2] or 0) > PORT_MAX:
        raise HeadError(ErrorResponse(400, "The host is not well formed."))
    return split_host(value.decode("ascii").lower())
