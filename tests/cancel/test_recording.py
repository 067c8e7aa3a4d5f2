"""A recording that is cancelled at every checkpoint leaves no connection, no file and no task."""

from __future__ import annotations

from pathlib import Path

import httpx
import trio

from tests.support.checkpoints import for_every_checkpoint
from tests.support.upstream.raw_server import answering, open_sockets, raw_server, response
from umbel.config.loading.load import load_given
from umbel.testing.cassettes.record import Tape, header_of, recorded_network
from umbel.upstream import Pool


async def test_a_recording_can_be_cancelled_at_every_checkpoint(tmp_path: Path) -> None:
    async with raw_server(answering(response(b'{"a": 1}'))) as port:
        config = load_given({"upstreams": {"u": {"urls": [f"http://127.0.0.1:{int(port)}"]}}})
        runs = 0

        async def run() -> None:
            nonlocal runs
            runs += 1
            tape = Tape(tmp_path / f"{runs}", header_of(config, bodies=True))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tape.run)
                async with recorded_network(config, tape) as network:
                    nursery.start_soon(network.reader.run)
                    async with httpx.AsyncClient(transport=Pool(dial=network.dial_for("u"))) as client:
                        for _ in range(2):
                            assert (await client.get(f"http://127.0.0.1:{int(port)}/")).json() == {"a": 1}
                tape.close()
                nursery.cancel_scope.cancel(reason="the recording is over")

        async def check() -> None:
            await port.all_closed()

        await run()
        await port.all_closed()
        sockets = open_sockets()
        assert await for_every_checkpoint(run, check, any_task=True) > 10
        assert open_sockets() == sockets
