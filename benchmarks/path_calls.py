"""The cost of each kind of call compared with a plain one: CPU of the gateway per request, with ten calls per request.

One gateway has a route for each kind. In each round every route is loaded once, in a rotating order. A ratio compares
two windows of the same round, so that a change of the machine's speed affects both.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import trustme
from lineup import Absent, Spot, nginx_command, nginx_conf, tool
from path_app import CALLS
from path_processes import HERE, Process, cpu, gateway, running, script
from path_report import Line, Section, progress, route, spread, upstream
from processes import free_port
from stub import BODY

CLIENTS = 16
START_S = 10.0
PLAIN, CODE, TLS = "plain", "code", "tls"
ONE, CODE_ONE = "one", "code-one"
"""The same with one call per request, so that the cost of a request can be distinguished from that of its calls."""
SHAPED, EACH = "shaped", "each"
BARS = dict.fromkeys((SHAPED, EACH, "retried", "guarded", "late", "hedged", CODE), 1.25) | {TLS: 1.7}
KINDS = {
    PLAIN: f"plain: a route of {CALLS} calls",
    SHAPED: "shaped: the same values under four keys, by a JMESPath expression",
    EACH: f"`each` over {CALLS} items",
    "retried": "retried: `retry = {}`, of which none is made",
    "guarded": "with a breaker: `breaker = {}`",
    "late": 'hedged: `hedge = { after = "1s" }`, of which none is made',
    "hedged": 'hedged: `hedge = { after = "p95" }`, with those that are made',
    "all": "with retries, hedges after a second and a breaker",
    CODE: f"made in code: `compose.gather()` of {CALLS}",
    TLS: "over TLS",
}
WINDOWS = (*KINDS, ONE, CODE_ONE)
POLICIES = {
    PLAIN: "",
    "retried": "retry = {}\n",
    "guarded": "breaker = {}\n",
    "late": 'hedge = { after = "1s" }\n',
    "hedged": 'hedge = { after = "p95" }\n',
    "all": 'retry = {}\nhedge = { after = "1s" }\nbreaker = {}\n',
}
SHAPE = "{a: [part0, part1, part2], b: [part3, part4, part5], c: [part6, part7], d: [part8, part9]}"
HOW = f"""CPU of the gateway (user and system, all threads) per request of {CALLS} calls, {CLIENTS} clients that ask
again as soon as they are answered; one gateway with a route for each kind, asked in turn. A ratio is to the plain route
in the same round: the median, the least and the greatest."""


def configuration(port: str, tls_port: str, ca: str) -> str:
    """Return the configuration: a route for each kind of call except those in code."""
    text = upstream("parts", [port], "max_concurrency = 1000\n") + route(ONE, ["parts"])
    for kind, policies in POLICIES.items():
        text += upstream(kind, [port], f"max_concurrency = 1000\n{policies}") + route(kind, [kind] * CALLS)
    text += f'[upstreams.{TLS}]\nurls = ["https://127.0.0.1:{tls_port}"]\nmax_concurrency = 1000\ntls.ca = "{ca}"\n'
    text += route(TLS, [TLS] * CALLS)
    text += route(SHAPED, ["parts"] * CALLS, f'answer.shape = "{SHAPE}"\n')
    items = ", ".join(map(str, range(CALLS)))
    path = '"/items/{item_id}/parts/{item}"'
    text += f'[[routes]]\npath = "/{EACH}/<item_id>"\n[routes.calls.parts]\nupstream = "parts"\npath = {path}\n'
    return text + f'each = "`[{items}]`"\nlimit = {CALLS}\n'


@contextmanager
def upstreams(directory: Path) -> Iterator[tuple[str, str, str]]:
    """The upstream: its port, its TLS port, and the file of the certificate authority."""
    authority = trustme.CA()
    ca, pem = directory / "ca.pem", directory / "server.pem"
    authority.cert_pem.write_to_path(str(ca))
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    with ExitStack() as stack:
        try:
            tool("nginx")
        except Absent:
            ports = [stack.enter_context(script(1, "stub.py", *more)).line() for more in ((), (str(pem),))]
            yield ports[0], ports[1], str(ca)
            return
        spot, tls_port = Spot(directory, free_port(), 0), free_port()
        tls_lines = f"listen 127.0.0.1:{tls_port} ssl backlog=4096; ssl_certificate {pem}; ssl_certificate_key {pem};"
        text = nginx_conf("upstream.conf", spot, BODY=BODY.decode(), MORE=tls_lines)
        stack.enter_context(running(1, *nginx_command(spot.written("nginx.conf", text), spot), directory=directory))
        _wait_for(tls_port)
        yield str(spot.port), str(tls_port), str(ca)


def _wait_for(port: int) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit("nginx does not serve as the upstream; what it said stands above")


def window(server: Process, port: int, load: Process, kind: str, seconds: float) -> float:
    """Return the CPU microseconds per request."""
    before = cpu(server.pid)
    count, *_ = json.loads(load.ask(f"{port} /{kind}/4711 {CLIENTS} {seconds}"))
    return (cpu(server.pid) - before) / count * 1e6


def measure(*, quick: bool) -> Section:
    rounds, seconds = (3, 0.5) if quick else (15, 1.5)
    costs: dict[str, list[float]] = {kind: [] for kind in WINDOWS}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-path-")))
        config = configuration(*stack.enter_context(upstreams(directory)))
        server, port = stack.enter_context(gateway(config, sys.executable, str(HERE / "path_app.py")))
        load = stack.enter_context(script(1, "path_load.py"))
        for kind in WINDOWS:
            window(server, port, load, kind, 1.0)
        order = list(WINDOWS)
        for turn in range(rounds):
            for kind in order:
                costs[kind].append(window(server, port, load, kind, seconds))
            order.append(order.pop(0))
            progress(f"calls: round {turn + 1} of {rounds} done")
    return Section("Kinds of calls", HOW, lines(costs))


def lines(costs: dict[str, list[float]]) -> list[Line]:
    """Return lines about the plain route and the ratio of each other kind of call to it."""
    found = [Line(f"{KINDS[PLAIN]}, µs", spread(costs[PLAIN], ",.0f"))]
    for kind, what in KINDS.items():
        if kind == PLAIN:
            continue
        ratios = [cost / plain for cost, plain in zip(costs[kind], costs[PLAIN], strict=True)]
        bar = BARS.get(kind)
        met = None if bar is None else statistics.median(ratios) <= bar
        found.append(Line(f"{what}, to plain", spread(ratios), "" if bar is None else f"≤ {bar:g}", met))
    further = [
        (code - code_one) / (plain - one)
        for plain, one, code, code_one in zip(*(costs[kind] for kind in (PLAIN, ONE, CODE, CODE_ONE)), strict=True)
    ]
    found.append(Line("made in code: each call after the first, to a plain one", spread(further)))
    found.append(
        Line("one call, plain and made in code, µs", f"{spread(costs[ONE], ',.0f')}, {spread(costs[CODE_ONE], ',.0f')}")
    )
    return found
