"""The master's output on stderr, its records, its messages to systemd, and its signals."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from umbel.core.events import Event, LogMessage
from umbel.supervisor.master.console_output import ConsoleOutput
from umbel.supervisor.master.sd_notify import SystemdNotifier
from umbel.supervisor.master.signals import dispatch_signal


class Kept:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)


def test_an_event_is_a_line_on_stderr_and_a_record() -> None:
    reader, writer = os.pipe()
    kept = Kept()
    ConsoleOutput(writer, kept).report("warning", "worker.ended", "it is\nover", slot=2)
    os.close(writer)
    with os.fdopen(reader) as output:
        assert output.read().endswith(f" [{os.getpid()}] WARN  worker.ended: it is\n    over\n")
    assert kept.events == [LogMessage("warning", "worker.ended", "it is\nover", fields={"slot": 2})]


def test_output_to_a_reader_that_has_stopped_is_dropped_without_waiting() -> None:
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    console = ConsoleOutput(writer)
    console.write(b"x" * (size + 100_000))
    assert console.statistics().dropped == 100_000
    os.close(reader)
    console.write(b"nobody")
    assert console.statistics().dropped == 100_006
    os.close(writer)


@pytest.mark.parametrize("form", ["path", "abstract"])
def test_systemd_is_notified_in_its_protocol(tmp_path: Path, form: str) -> None:
    name = str(tmp_path / "s") if form == "path" else f"\0umbel-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name)
        notifier = SystemdNotifier({"NOTIFY_SOCKET": name.replace("\0", "@"), "WATCHDOG_USEC": "5000000"})
        assert notifier.watchdog_interval == 2.5
        notifier.ready("fine")
        assert sock.recv(999).decode() == f"READY=1\nMAINPID={os.getpid()}\nSTATUS=fine"
        notifier.stopping(2.5, "bye")
        assert sock.recv(999) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000\nSTATUS=bye"
        notifier.reloading()
        kind, stamp = sock.recv(999).decode().split("\n")
        assert kind == "RELOADING=1"
        assert int(stamp.removeprefix("MONOTONIC_USEC=")) > 0
        notifier.ping_watchdog()
        assert sock.recv(999) == b"WATCHDOG=1"
    notifier.ping_watchdog()
    assert notifier.lost == 1


def test_without_systemd_no_message_is_sent_or_counted_as_lost() -> None:
    notifier = SystemdNotifier({"WATCHDOG_USEC": "5000000"})
    notifier.ready("fine")
    assert (notifier.watchdog_interval, notifier.lost) == (None, 0)
    assert SystemdNotifier({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog_interval is None


class Asked:
    """A master that keeps the commands."""

    size = 3

    def __init__(self) -> None:
        self.stopping = False
        self.asked: list[Any] = []

    def stop(self, reason: str, *, quick: bool = False) -> None:
        self.stopping = True
        self.asked.append((reason, quick))

    def reload(self) -> int:
        self.asked.append("reload")
        return 1

    def scale(self, count: int) -> None:
        self.asked.append(count)

    def reopen_logs(self) -> None:
        self.asked.append("reopen")

    def reap(self) -> None:
        self.asked.append("reap")


@pytest.mark.parametrize(
    ("signals", "asked"),
    [
        ("TERM TERM", [("SIGTERM", False), ("SIGTERM", False)]),
        ("INT INT", [("SIGINT", False), ("SIGINT", True)]),
        ("QUIT", [("SIGQUIT", True)]),
        ("HUP USR1 CHLD USR2", ["reload", "reopen", "reap"]),
        ("TTIN TTOU", [4, 2]),
    ],
)
def test_each_signal_has_its_meaning(signals: str, asked: list[Any]) -> None:
    master = Asked()
    for name in signals.split():
        dispatch_signal(master, signal.Signals[f"SIG{name}"])
    assert master.asked == asked


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "9" * 400, "1.5"])
def test_an_invalid_watchdog_time_disables_the_pings(value: str) -> None:
    assert SystemdNotifier({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": value}).watchdog_interval is None
