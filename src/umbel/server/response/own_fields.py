"""Fields that the server adds to each response: Date (RFC 9110 section 6.6.1) and Alt-Svc, as hypercorn.toml says.

They are made once a second, from the wall clock, because Date shows it. No field names the server software.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypercorn.config import Config

Fields = list[tuple[bytes, bytes]]


class OwnFields:
    """``date: …`` and ``alt-svc: …``, as far as the settings want them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._from = self._until = 0.0
        """The second that they were made in."""
        self._fields: Fields = []
        self._lines = b""
        self._undated = b""

    def fields(self, *, dated: bool = False) -> Fields:
        """The fields for now; without Date for a response that is ``dated`` already."""
        self.lines()
        return [field for field in self._fields if not (dated and field[0] == b"date")]

    def lines(self, dated: bool = False) -> bytes:
        """The same as lines of a head, with their line ends."""
        if not self._from <= time() < self._until:
            self._renew()
        return self._undated if dated else self._lines

    def _renew(self) -> None:
        self._from = float(int(time()))
        self._until = self._from + 1.0
        self._fields = [field for field in self._config.response_headers("") if field[0] != b"server"]
        self._lines = b"".join(b"%b: %b\r\n" % field for field in self._fields)
        self._undated = b"".join(b"%b: %b\r\n" % field for field in self._fields if field[0] != b"date")
