"""What a token costs a request of a route with ten calls: a part of ``make bench-auth``, half a minute.

One gateway serves two routes that differ in ``auth`` only. One client sends the same fields to both, a token in
Authorization among them; the token is remembered. Rounds of both routes alternate, and each pair of rounds gives a
ratio of the CPU time per request, as the kernel counts it for all threads of the gateway. Then cProfile counts the
functions that a request enters, Python's and C's.
"""

from __future__ import annotations

import cProfile
import http.client
import json
import os
import pstats
import random
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from auth import ISSUER, KEYS, token
from hooks import BEGIN, END, HERE, said, started

CALLS = 10
WARM_UP, PAIRS, ROUND, COUNTED = 300, 80, 100, 100
RATIO_MAX = 1.05
ROUTES = {"none": "/open", "jwt": "/closed"}


def serve(directory: str, upstream: str) -> None:
    """Serve in this process: print the address, and at the end of each profile the number of functions entered."""
    from umbel import Umbel
    from umbel.config.schema.sections import Config

    calls = {f"c{number}": {"upstream": "u", "path": f"/{number}"} for number in range(CALLS)}
    issuer = {"iss": ISSUER, "keys": str(Path(directory) / "keys.json"), "audience": ["shop"]}
    config: dict[str, Any] = {
        "logs": {"dir": directory},
        "upstreams": {"u": {"urls": [f"http://127.0.0.1:{upstream}"]}},
        "auth": {"users": {"kind": "jwt", "algorithms": ["RS256"], "issuers": [issuer]}},
        "routes": [
            {"path": ROUTES["none"], "auth": "none", "calls": calls},
            {"path": ROUTES["jwt"], "auth": ["users"], "scopes": ["orders:read"], "calls": calls},
        ],
    }
    profile = cProfile.Profile()

    def end(*_: object) -> None:
        profile.disable()
        print(pstats.Stats(profile).total_calls, flush=True)  # type: ignore[attr-defined]  # typeshed lacks it
        profile.clear()

    signal.signal(BEGIN, lambda *_: profile.enable())
    signal.signal(END, end)
    Umbel(__name__, Config.model_validate(config), static_folder=None).run(port=0)


def cpu_ns(pid: int) -> int:
    """The CPU nanoseconds that all threads of a process have used."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{pid}/task").glob("*/schedstat"))


class Client:
    """One connection to the gateway, with a token."""

    def __init__(self, port: int, text: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._fields = {"Authorization": f"Bearer {text}"}

    def ask(self, path: str, times: int) -> None:
        """Send requests one after the other."""
        for _ in range(times):
            self._connection.request("GET", path, headers=self._fields)
            answer = self._connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body


def measured(pid: int, client: Client) -> dict[str, list[float]]:
    """The CPU microseconds per request of each round, by kind of route."""
    rng = random.Random(21)
    found: dict[str, list[float]] = {kind: [] for kind in ROUTES}
    for _ in range(PAIRS):
        for kind in rng.sample([*ROUTES], len(ROUTES)):
            before = cpu_ns(pid)
            client.ask(ROUTES[kind], ROUND)
            found[kind].append((cpu_ns(pid) - before) / ROUND / 1e3)
    return found


def main() -> bool:
    key = KEYS["RS256"]()
    with tempfile.TemporaryDirectory() as directory, started(str(HERE / "path_upstream.py"), "0") as stub:
        members = {**key.as_dict(private=False), "kid": "signing-key-2026"}
        (Path(directory) / "keys.json").write_text(json.dumps({"keys": [members]}))
        with started(__file__, "serve", directory, said(stub).split()[0]) as gateway:
            client = Client(int(said(gateway).partition(" (")[0].rpartition(":")[2]), token("RS256", key))
            for path in ROUTES.values():
                client.ask(path, WARM_UP)
            cpu = measured(gateway.pid, client)
            functions = {}
            for kind, path in ROUTES.items():
                gateway.send_signal(BEGIN)
                client.ask(path, COUNTED)
                gateway.send_signal(END)
                functions[kind] = int(said(gateway)) / COUNTED
    ratios = sorted(closed / free for closed, free in zip(cpu["jwt"], cpu["none"], strict=True))
    ratio = statistics.median(ratios)
    print(f"| a route of {CALLS} calls | functions entered | CPU, µs |")
    print("|---|---:|---:|")
    for kind, rounds in cpu.items():
        print(f"| `auth` {kind} | {functions[kind]:.0f} | {statistics.median(rounds):.0f} |")
    low, high = ratios[len(ratios) // 4], ratios[-len(ratios) // 4]
    kept = ratio <= RATIO_MAX
    print(f"\nwith a token {ratio:.3f} times (quartiles {low:.3f}-{high:.3f} of {PAIRS} pairs)")
    print(f"bar: at most {RATIO_MAX}: {'kept' if kept else 'MISSED'}")
    return kept


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(*sys.argv[2:4])
        os._exit(0)
    sys.exit(not main())
