"""systemd's notify protocol, sd_notify(3): ready, reloading, stopping, a status line, and watchdog pings.

Without ``NOTIFY_SOCKET`` in the environment, all methods do nothing. A message that cannot be sent at once is dropped
and counted.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping

_NS_PER_US = 1000
_MICROSECONDS = re.compile(r"[0-9]{1,18}")


class SystemdNotifier:
    """The sender of messages to the socket that ``NOTIFY_SOCKET`` names. Its methods never wait and never raise.

    ``environment`` is read once, here.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading "@" means the zero byte of the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_interval = _watchdog_interval(environment) if address else None
        """Seconds between two watchdog pings: half of systemd's timeout; None without a watchdog."""
        self.lost = 0
        """Messages that could not be sent."""

    def ready(self, status: str) -> None:
        """Send that the service is ready, for the first time or after a reload; ``status`` is the status line."""
        self._send("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Set the status line of ``systemctl status``."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """Send that a reload has begun; ``ready`` ends it. ``Type=notify-reload`` requires the time."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // _NS_PER_US}")

    def stopping(self, seconds: float, status: str) -> None:
        """Send that the service stops, which may take ``seconds``."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", f"STATUS={status}")

    def ping_watchdog(self) -> None:
        """Send a watchdog ping."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            self.lost += 1


def _watchdog_interval(environment: Mapping[str, str]) -> float | None:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = environment.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 / 2 or None if _MICROSECONDS.fullmatch(microseconds) else None
