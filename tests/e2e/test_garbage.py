"""What a request leaves for the garbage collector: nothing, so that no collection holds up the requests in flight."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support.rawserver import answering, raw_server, response
from tests.support.serving import serving
from umbel.config.schema import Config
from umbel.gateway.app import Umbel

ROUNDS = 100
REQUEST = b"GET /page/42?limit=3 HTTP/1.1\r\nhost: localhost\r\n\r\n"
OURS = ("umbel.",)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The collector is off, and keeps what it finds when it is asked."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_a_request_leaves_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    async with raw_server(answering(response(b'{"name":"Ann"}'))) as port:
        call = {"upstream": "up", "path": "/users/{id}"}
        page = {
            "path": "/page/<id>",
            "query": {"limit": {"type": "int"}},
            "calls": {"one": call, "two": call, "late": {"upstream": "up", "path": "/of/{one.name}"}},
        }
        config = {
            "logs": {"dir": str(tmp_path)},
            "upstreams": {"up": {"urls": [f"http://127.0.0.1:{int(port)}"]}},
            "routes": [page],
        }
        app = Umbel(__name__, Config.model_validate(config), static_folder=None)
        async with serving(app) as gate, await trio.open_tcp_stream("127.0.0.1", gate) as client:
            for round_ in range(2 * ROUNDS):
                if round_ == ROUNDS:  # what is made once has been made
                    assert app.statistics().direct
                    gc.collect()
                    gc.set_debug(gc.DEBUG_SAVEALL)
                await client.send_all(REQUEST)
                answer = b""
                while not answer.endswith(b"}}"):
                    answer += await client.receive_some()
                assert answer.startswith(b"HTTP/1.1 200")
            gc.collect()
            left = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    ours = {name: count for name, count in left.items() if name.startswith(OURS)}
    assert max(ours.values(), default=0) < ROUNDS / 10, ours
