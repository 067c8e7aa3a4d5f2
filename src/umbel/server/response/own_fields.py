"""Own fields: the header fields that the server adds to each response, Date (RFC 9110 section 6.6.1) and Alt-Svc.

``hypercorn.toml`` decides which. There is no Server field.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypercorn.config import Config

Fields = list[tuple[bytes, bytes]]


class OwnFields:
    """The own fields of a server, encoded once per second of the wall clock."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._from = self._until = 0.0
        """The bounds of the second for which the encoded fields hold (wall clock)."""
        self._fields: Fields = []
        self._lines = b""
        self._undated = b""

    def fields(self, *, dated: bool = False) -> Fields:
        """The fields for this second. ``dated``: without Date, because the response has one."""
        self.lines()
        return [field for field in self._fields if not (dated and field[0] == b"date")]

    def lines(self, dated: bool = False) -> bytes:
        """The fields for this second as lines of an HTTP/1.1 head, with their line ends; ``dated``: without Date."""
        if not self._from <= time() < self._until:
            self._renew()
        return self._undated if dated else self._lines

    def _renew(self) -> None:
        self._from = float(int(time()))
        self._until = self._from + 1.0
        self._fields = [field for field in self._config.response_headers("") if field[0] != b"server"]
        self._lines = b"".join(b"%b: %b\r\n" % field for field in self._fields)
        self._undated = b"".join(b"%b: %b\r\n" % field for field in self._fields if field[0] != b"date")
