"""The longest stall of the event loop that a client or an upstream can cause: ``make bench-stalls``.

A gateway is served on a real socket, and each hostile input is sent to it by a client or by its upstream. The result is
the CPU time of the longest step between two checkpoints. In addition, 64 KiB of the worst strings are given to each
regular expression of the source and to each function that parses input from outside. The limit is 20 ms, and 100 ms for
bodies of 1 MB. ``--json FILE`` writes the figures; the exit status is 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trio
from tests.support.source.adversarial import SIZES, PumpedText, seconds_of, slowest_texts, texts_of_pattern
from tests.support.source.input_readers import CASES, CONFIG
from tests.support.source.regex_patterns import MADE_AT_RUN_TIME, METHODS, find_patterns, method_of

from umbel.config.loading.load import load
from umbel.gateway.app import Umbel
from umbel.server import hypercorn_config, serve

SMALL_MS, LARGE_MS = 20.0, 100.0
"""What is asked of 64 KiB, and of a body of 1 MB."""
MEGABYTE = 1_000_000
ROUNDS = 3
ANSWER_S_MAX = 60.0

GATEWAY = """
[logs]
dir = "{directory}"
[server]
max_body = "1MB"
[upstreams.up]
urls = ["http://127.0.0.1:{port}"]
max_body = "1MB"
[[routes]]
path = "/echo"
methods = ["POST"]
max_body = "1MB"
deadline = "60s"
answer.shape = "{{got: type(body)}}"
calls.none = {{ upstream = "up", path = "/", when = "`false`" }}
[[routes]]
path = "/shape"
methods = ["POST"]
max_body = "1MB"
deadline = "60s"
answer.shape = "body[?a > `0` || @ > `0`].{{x: a, y: to_string(b), z: @.c.d}}"
calls.none = {{ upstream = "up", path = "/", when = "`false`" }}
[[routes]]
path = "/json"
deadline = "60s"
answer.shape = "{{got: type(one)}}"
calls.one = {{ upstream = "up", path = "/" }}
[[routes]]
path = "/text"
deadline = "60s"
answer.shape = "{{got: length(one)}}"
calls.one = {{ upstream = "up", path = "/", decode = "text" }}
"""

DOCUMENTS: dict[str, bytes] = {
    "commas, then a string of escaped quotes": b"," * 200_001 + b'"' + b'\\"' * 399_000,
    "1e308": b"[" + b"1e308," * 166_000 + b"1]",
    "1e-320": b"[" + b"1e-320," * 142_000 + b"1]",
    "numbers of 310 digits": b"[" + (b"17976931348623157" + b"0" * 291 + b".0,") * 3200 + b"1]",
    "ordinary numbers": b"[" + b"12.3456," * 110_000 + b"1]",
    "lists in lists": b"[" + (b"[" * 199 + b"]" * 199 + b",") * 1000 + b"1]",
    "objects": b"[" + b'{"a":[]},' * 66_000 + b"1]",
    "escaped strings": b"[" + b'"\\u0000",' * 110_000 + b"1]",
    "keys": b"{" + b",".join(b'"%x":1' % number for number in range(100_000)) + b"}",
}


class Row(NamedTuple):
    """A figure: the input, its receiver, the stall of the event loop, and the limit."""

    place: str
    what: str
    ms: float
    asked: float

    @property
    def is_missed(self) -> bool:
        return self.ms > self.asked


class StallMeter(trio.abc.Instrument):
    """The longest step of any task in CPU seconds, in which other programs do not count."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, time.thread_time() - self._began)

    def taken(self) -> float:
        longest, self.longest = self.longest, 0.0
        return longest


class Upstream(threading.Thread):
    """An upstream that responds to the first request of each connection with given bytes, and closes."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(daemon=True)
        self.answer = b""
        self._listener = listener

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # The listener is closed: the bench is over.
            with connection:
                connection.recv(64 * 1024)
                connection.sendall(self.answer)


@contextmanager
def upstream() -> Iterator[tuple[Upstream, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Upstream(listener)
        thread.start()
        yield thread, listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def ask(port: int, request: bytes) -> bytes:
    """Return the response to one request on a connection of its own. Blocking."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S_MAX) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(64 * 1024):
            answer += part
        return answer


def request_of(line: str, fields: Sequence[tuple[str, bytes]] = (), body: bytes = b"") -> bytes:
    head = b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in fields)
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return b"%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%b%b\r\n%b" % (line.encode(), head, length, body)


def answer_of(content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


Sent = tuple[str, str, bytes, bytes, float]
"""Where it goes, what it is, the request, the upstream's answer, and what is asked."""


def sent() -> Iterator[Sent]:
    """Yield all inputs that are sent over a socket."""
    ok = answer_of("application/json", b"{}")
    for what, word in {"secret.a.": "secret.a.", "eyJa-": "eyJa-eyJa-", "://": "://", "token=a&": "token=a&"}.items():
        yield "path", f"{what} ...", request_of("GET /=" + (word * 8000)[:8000]), ok, SMALL_MS
    for name in ("Cookie", "Content-Type", "Accept", "Prefer", "X-Forwarded-For", "traceparent"):
        for what, word in {"a=b;": b"a=b;", 'a="\\"': b';a="\\"', ",": b","}.items():
            field = (name, b"application/json; " * (name == "Content-Type") + (word * 14_000)[:14_000])
            yield f"field {name}", f"{what} ...", request_of("POST /echo", [field], b"[1]"), ok, SMALL_MS
    json_type = ("Content-Type", b"application/json")
    for what, document in DOCUMENTS.items():
        yield "request's body", what, request_of("POST /echo", [json_type], document[:MEGABYTE]), ok, LARGE_MS
        yield "upstream's answer", what, request_of("GET /json"), answer_of("application/json", document), LARGE_MS
    for what in ("ordinary numbers", "objects", "lists in lists"):
        request = request_of("POST /shape", [json_type], DOCUMENTS[what][:MEGABYTE])
        yield "expression over a body", what, request, ok, LARGE_MS
    for charset in ("punycode", "idna", "undefined", "unicode_escape", "utf-7", "utf-16", "windows-1252", "gb18030"):
        text = answer_of(f"text/plain; charset={charset}", b"a-" * 500_000)
        yield "upstream's answer", f"charset={charset}", request_of("GET /text"), text, LARGE_MS


async def over_sockets(directory: Path, progress: Callable[[], None]) -> list[Row]:
    """Return the longest step of the event loop for each input, the best of some rounds."""
    rows: list[Row] = []
    meter = StallMeter()
    with upstream() as (thread, port):
        file = directory / "umbel.toml"
        file.write_text(GATEWAY.format(directory=directory / "logs", port=port))
        app = Umbel("bench", load(file), static_folder=None)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            run = partial(serve, app, hypercorn_config(bind=["127.0.0.1:0"]), shutdown_trigger=over.wait)
            [address] = await nursery.start(run)
            gateway = int(address.rpartition(":")[2])
            trio.lowlevel.add_instrument(meter)
            for place, what, request, answer, asked in sent():
                thread.answer = answer
                held: list[float] = []
                for _ in range(ROUNDS):
                    meter.taken()
                    await trio.to_thread.run_sync(ask, gateway, request)
                    held.append(meter.taken())
                rows.append(Row(place, what, min(held) * 1000, asked))
                progress()
            trio.lowlevel.remove_instrument(meter)
            over.set()
    return rows


def worst(place: str, function: Callable[[Any], object], texts: Sequence[PumpedText], *, binary: bool) -> Row:
    """Return the longest duration of a function for 64 KiB of input."""
    found = slowest_texts(function, texts, binary=binary)
    timed = [
        (min(seconds_of(function, pumped, SIZES[-1], binary=binary) for _ in range(ROUNDS)), pumped) for pumped in found
    ]
    taken, pumped = max(timed, key=lambda each: each[0])
    return Row(place, f"{pumped.prefix!r} {pumped.pump!r} ... {pumped.suffix!r}", taken * 1000, SMALL_MS)


def of_functions(progress: Callable[[], None]) -> Iterator[Row]:
    for name, case in CASES.items():
        row = worst(f"reads {name}", case.function, case.texts, binary=case.binary)
        # Nobody but the operator writes a configuration, and it is read while nothing is served.
        yield row._replace(asked=LARGE_MS) if name in CONFIG else row
        progress()


def of_patterns(progress: Callable[[], None]) -> Iterator[Row]:
    patterns: list[tuple[str, re.Pattern[Any]]] = [
        *((found.place, found.pattern) for found in find_patterns() if found.pattern is not None),
        *((owner, pattern) for owner, make in MADE_AT_RUN_TIME.items() for pattern in make()),
    ]
    for place, pattern in patterns:
        texts, binary = texts_of_pattern(pattern), isinstance(pattern.pattern, bytes)
        rows = [worst(place, method_of(pattern, method), texts, binary=binary) for method in METHODS]
        yield max(rows, key=lambda row: row.ms)
        progress()


def printed(title: str, rows: Sequence[Row], count: int) -> None:
    rows = sorted(rows, key=lambda row: row.ms / row.asked, reverse=True)
    shown = [row for place, row in enumerate(rows) if place < count or row.is_missed]
    print(f"\n{title} ({len(rows)}; the worst first)\n")
    print("| ms | asked | where | what |\n|---:|---:|---|---|")
    for row in shown:
        mark = " MISSED" if row.is_missed else ""
        print(f"| {row.ms:.1f}{mark} | {row.asked:.0f} | {row.place} | {row.what[:70]} |")
    print(f"\n{len(rows) - len(shown)} more, none over {max((row.ms for row in rows), default=0):.1f} ms")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make bench-stalls", description=__doc__)
    parser.add_argument("--only", choices=("sockets", "functions", "patterns"), help="one of the three tables")
    parser.add_argument("--rows", type=int, default=15, help="how many of each table are printed, those missed aside")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all figures")
    options = parser.parse_args(arguments)

    def progress() -> None:
        print(".", end="", file=sys.stderr, flush=True)

    tables: dict[str, list[Row]] = {}
    if options.only in (None, "sockets"):
        with tempfile.TemporaryDirectory() as directory:
            tables["over sockets"] = trio.run(over_sockets, Path(directory), progress)
    if options.only in (None, "functions"):
        tables["64 KiB to each function that reads"] = list(of_functions(progress))
    if options.only in (None, "patterns"):
        tables["64 KiB to each regular expression"] = list(of_patterns(progress))
    print(file=sys.stderr)
    for title, rows in tables.items():
        printed(title, rows, options.rows)
    if options.json is not None:
        document = {title: [row._asdict() for row in rows] for title, rows in tables.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if any(row.is_missed for rows in tables.values() for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
