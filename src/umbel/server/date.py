"""The Date field (RFC 9110 section 6.6.1), made once a second.

Used by ``response.py`` for every answer. Wall clock, because that is what it tells.
"""

from __future__ import annotations

import time
from email.utils import formatdate


class DateField:
    """``date: …`` as a line of a head."""

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        """The line for now, with its line end."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line
