"""The memory of open requests: ten thousand requests with two calls each, and how much of it is returned afterwards.

The upstreams accept each call and respond only when they are released. If one process may not have the descriptors
(three for each request), several workers hold the requests, and their memory is summed.
"""

from __future__ import annotations

import math
import re
import resource
import select
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from path_processes import Process, Supervised, resident, script, supervised
from path_report import Line, Section, progress, route, upstream

COUNT = 10_000
BACK = 0.9
BAR_BYTES = 1.5 * 2**30
SLACK = 0.02
"""What a last round may hold beyond the first, as a share: allocators never find back to the page."""
CALLS = 2
BATCH = 50
PER_REQUEST = 1 + CALLS
"""Descriptors of the gateway: the client's connection and one for each call."""
UNEVEN = 1.6
"""How many times its share one worker may get of the connections; descriptors are reckoned for that many."""
PATIENCE_S = 600.0
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Moment(NamedTuple):
    """The memory and counters of all workers at one time."""

    resident: int
    descriptors: int
    tasks: int
    in_flight: int
    connections: int

    def text(self) -> str:
        return f"{mib(self.resident)}, {self.descriptors:,} descriptors, {self.tasks:,} tasks"


def mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def moment(tree: Supervised) -> Moment:
    """Return the present memory, with the counters of the last heartbeats."""
    workers = tree.status()
    pids = [worker["pid"] for worker in workers]
    return Moment(
        sum(map(resident, pids)),
        sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        *(sum(worker["beat"][name] for worker in workers) for name in ("tasks", "inflight", "connections")),
    )


def settled(tree: Supervised, before: Moment | None) -> Moment:
    """Wait until nothing is in flight and no connection is being closed, or a time limit is over; return the memory."""
    until = time.monotonic() + PATIENCE_S / 10
    last = moment(tree)
    while time.monotonic() < until:
        time.sleep(2.5)
        now = moment(tree)
        quiet = now.in_flight == now.connections == 0 and now.descriptors == last.descriptors
        if quiet and (before is None or now.descriptors <= before.descriptors):
            return now
        last = now
    return last


class Client:
    """The client: connections with one open request each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, bytes]] = {}
        self.answered = self.failed = 0

    def ask(self, count: int, stubs: list[Process]) -> None:
        """Send and hold ``count`` requests, a few at a time: the acceptance of a burst is not measured here."""
        request = f"GET /two/4711 HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\nuser-agent: bench\r\n\r\n".encode()
        until = time.monotonic() + PATIENCE_S
        for number in range(1, count + 1):
            sock = socket.create_connection(("127.0.0.1", self._port), timeout=60)
            sock.send(request)
            self._open[sock.fileno()] = sock, b""
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            if not number % BATCH or number == count:
                while sum(int(stub.ask("held 0")) for stub in stubs) < CALLS * (number - self.failed):
                    self.take(0.02)
                    if time.monotonic() > until:
                        raise SystemExit("the calls did not all reach the upstream")

    def take(self, seconds: float) -> None:
        """Take the answers that come; each closes its connection."""
        until = time.monotonic() + seconds
        while self._open and (left := until - time.monotonic()) > 0:
            for number, _ in self._epoll.poll(left):
                self._take_one(number)

    def _take_one(self, number: int) -> None:
        sock, rest = self._open[number]
        try:
            piece = sock.recv(65536)
        except ConnectionError:
            piece = b""
        answer = rest + piece
        head, end, body = answer.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        whole = bool(end) and found is not None and len(body) >= int(found[1])
        if piece and not whole:
            self._open[number] = sock, answer
            return
        if whole and head.startswith(b"HTTP/1.1 200"):
            self.answered += 1
        else:
            self.failed += 1
            if self.failed == 1:
                progress(f"memory: a request failed: {answer[:300]!r}")
        self._epoll.unregister(number)
        sock.close()
        del self._open[number]

    @property
    def waiting(self) -> int:
        return len(self._open)


def hold(tree: Supervised, stubs: list[Process], count: int) -> tuple[Moment, Client, float]:
    """Hold requests, then release them; return the memory at the peak and the seconds until all were held."""
    client = Client(tree.port)
    began = time.monotonic()
    client.ask(count, stubs)
    took = time.monotonic() - began
    time.sleep(2.5)  # two heartbeats
    top = moment(tree)
    progress(f"memory: {count - client.failed:,} held after {took:.0f} s: {top.text()}")
    for stub in stubs:
        stub.ask("release 0")
    until = time.monotonic() + PATIENCE_S
    while client.waiting and time.monotonic() < until:
        client.take(1)
    return top, client, took


def descriptors() -> int:
    """Raise the limit of descriptors to its maximum and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        hard = min(hard, 200_000) if hard != resource.RLIM_INFINITY else 200_000
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft


def configuration(ports: list[str], count: int) -> str:
    more = f'max_concurrency = {count}\nmax_queue = {count}\nconnect_timeout = "30s"\nkeepalive_expiry = "1s"\n'
    return "\n".join(
        [
            f"[server]\nmax_connections = {count}\nmax_in_flight = {count}",
            *(upstream(f"half{number}", [port], more) for number, port in enumerate(ports)),
            route("two", ["half0", "half1"], 'deadline = "20m"\n'),
        ]
    )


def measure(*, quick: bool) -> Section:
    allowed = descriptors()
    count = min(1000 if quick else COUNT, int(allowed * 0.95))
    one = count * PER_REQUEST * 1.05 <= allowed
    workers = 1 if one else math.ceil(count * PER_REQUEST * UNEVEN / allowed)
    with ExitStack() as stack:
        stubs = [stack.enter_context(script(1, "path_upstream.py", "hold")) for _ in range(2)]
        tree = stack.enter_context(supervised(configuration([stub.line() for stub in stubs], count), workers))
        warm = Client(tree.port)
        warm.ask(BATCH, stubs)
        for stub in stubs:
            stub.ask("release 0")
        warm.take(10)
        before = settled(tree, None)
        progress(f"memory: before: {before.text()}")
        tops, afters, clients = [], [], []
        for turn in range(2 if quick else 3):
            top, client, took = hold(tree, stubs, count)
            afters.append(settled(tree, before))
            tops.append((top, took))
            clients.append(client)
            progress(f"memory: after round {turn + 1}: {afters[-1].text()}")
    return section(count, workers, before, tops, afters, clients)


def section(
    count: int,
    workers: int,
    before: Moment,
    tops: list[tuple[Moment, float]],
    afters: list[Moment],
    clients: list[Client],
) -> Section:
    peak = max(top.resident for top, _ in tops)
    each = (tops[0][0].resident - before.resident) / count
    failed = sum(client.failed + client.waiting for client in clients)
    first, last = afters[0], afters[-1]
    # Pages that the allocator keeps for later are no leak; growth from round to round would be.
    grown = last.resident - first.resident
    same = all(after[1:] == before[1:] for after in afters)
    rows = [
        Line(
            f"resident with {count:,} requests held, the most of {len(tops)} rounds",
            mib(peak),
            "< 1.5 GiB with 10,000",
            peak < BAR_BYTES if count >= COUNT or peak >= BAR_BYTES else None,
        ),
        Line("one held request with its two calls", f"{each / 1024:,.1f} KiB"),
        Line("requests that were not answered in the end", f"{failed:,}", "0", not failed),
        Line("before", before.text()),
    ]
    for number, ((top, took), after) in enumerate(zip(tops, afters, strict=True), 1):
        rows.append(Line(f"round {number}, held after {took:.0f} s", top.text()))
        rows.append(Line(f"round {number}, after the answers", after.text()))
    back = (tops[-1][0].resident - last.resident) / (tops[-1][0].resident - before.resident)
    rows += [
        Line("of what the last round took, given back to the system", f"{back:.0%}", f"≥ {BACK:.0%}", back >= BACK),
        Line(
            "memory after the last round beside after the first",
            f"{grown / 2**20:+,.1f} MiB",
            f"≤ {SLACK:.0%}",
            grown <= first.resident * SLACK,
        ),
        Line("descriptors, tasks, requests and connections as before", "yes" if same else "no", "yes", same),
    ]
    who = f"{workers} workers hold them together" if workers > 1 else "one worker holds them"
    how = f"""Each client's connection bears one request, and each request makes {CALLS} calls that are not answered
until all are held. {who}: a process may have {descriptors():,} descriptors here,
and a request needs {PER_REQUEST}. Figures are sums over the workers; memory is what is resident."""
    return Section("Requests held open", how, rows)
