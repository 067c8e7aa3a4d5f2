"""A blocked event loop in a process without a master: reported once, with place and duration; nothing is ended."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import trio

from tests.support.gateway.configs import write
from tests.support.process.processes import PYTHON, Child, started

BLOCKS = """
import re
import time
from umbel import Umbel
from umbel.server import install_in_hypercorn
install_in_hypercorn()
app = Umbel.from_file()
def sleeps(secret):
    time.sleep(1.5)  # This line blocks the event loop.

def searches(secret):
    re.match(r"(x+)+y", "x" * 25)  # This line blocks it with the interpreter's lock held.

@app.get("/<how>")
async def block(how):
    {"sleeps": sleeps, "searches": searches}.get(how, len)("s3cr3t")
    return how

if __name__ == "__main__":
    app.run(port=0)
"""
CONFIG = '[supervisor]\nhang_timeout = "500ms"\n[upstreams.u]\nurls = ["http://127.0.0.1:1"]\n'
COMMANDS = {
    "umbel serve": (PYTHON, "-m", "umbel", "serve", "blocks:app", "--bind", "127.0.0.1:0"),
    "hypercorn": (PYTHON, "-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", "blocks:app"),
    "app.run()": (PYTHON, "blocks.py"),
}


async def get(port: int, path: str) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return b"".join([piece async for piece in stream])


async def port_of(child: Child) -> int:
    line = await child.line("unning on" if "hypercorn" in child.output else "http://")
    return int(line.partition("://127.0.0.1:")[2].split()[0])


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_blocked_loop_is_reported_with_its_place_and_duration(command: str, tmp_path: Path) -> None:
    write(tmp_path, CONFIG, {"blocks.py": BLOCKS})
    async with started(*COMMANDS[command], cwd=tmp_path, env={"PYTHONUNBUFFERED": "1"}) as server:
        port = await port_of(server)
        with trio.fail_after(30):
            assert (await get(port, "/nothing")).endswith(b"nothing")
            assert (await get(port, "/sleeps")).endswith(b"sleeps")
            assert 'blocks.py", line 9 in sleeps' in await server.line("in sleeps")
            assert "the event loop was blocked for" in await server.line("loop.blocked")
            assert (await get(port, "/nothing")).endswith(b"nothing")
            assert (await get(port, "/sleeps")).endswith(b"sleeps")
            await server.line("in sleeps")
        assert await server.stop(signal.SIGTERM) == 0
    assert server.output.count("in sleeps\n") == 2
    assert "s3cr3t" not in server.output
    assert "Traceback" not in server.output
    record = (tmp_path / "logs" / "app.jsonl").read_text()
    assert record.count('"loop.blocked"') == 2


async def test_a_loop_blocked_in_c_code_is_reported_during_the_block(tmp_path: Path) -> None:
    write(tmp_path, CONFIG, {"blocks.py": BLOCKS})
    async with started(*COMMANDS["umbel serve"], cwd=tmp_path) as server, trio.open_nursery() as nursery:
        port = await port_of(server)
        nursery.start_soon(get, port, "/searches")
        assert 'blocks.py", line 12 in searches' in await server.line("in searches")
        assert "loop.blocked" not in server.output
        await server.line("loop.blocked")
        nursery.cancel_scope.cancel()
        assert await server.stop(signal.SIGTERM) == 0


async def test_a_busy_loop_is_not_reported(tmp_path: Path) -> None:
    busy = BLOCKS.replace("time.sleep(1.5)", "time.sleep(0.05)")
    write(tmp_path, CONFIG, {"blocks.py": busy})
    async with started(*COMMANDS["umbel serve"], "--hang-timeout", "5s", cwd=tmp_path) as server:
        port = await port_of(server)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(get, port, "/sleeps")
        assert await server.stop(signal.SIGTERM) == 0
    assert "Timeout (" not in server.output
    assert "loop.blocked" not in server.output
