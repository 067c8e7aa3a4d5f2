"""The example of ``umbel.observe.console`` in the documentation, as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path

import trio

from tests.support.process.processes import PROJECT, PYTHON, ended, started
from tests.unit.observe.test_program_console import Browser

DOCS = (PROJECT / "docs" / "console.md").read_text()
[EXAMPLE] = [code for code in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL) if "trio.run(main)" in code]
FOREIGN = ("httpx", "quart", "pydantic", "werkzeug")


async def test_the_example_of_the_documentation_shows_its_tasks_and_ends_at_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "ticks.py").write_text(EXAMPLE)
    async with started(PYTHON, "ticks.py", cwd=tmp_path) as program:
        browser = Browser((await program.line("The console")).split()[-1])
        with trio.fail_after(30):
            assert await browser.open() == 303
            tree = json.loads((await browser.content("/tree"))[1])["trees"][0]
        assert tree["process"] == "main"
        assert '"count": 5' in json.dumps(tree)
        assert "ticks.py:7" in json.dumps(tree)
        assert await program.stop(signal.SIGINT) != 0
    assert "KeyboardInterrupt" in program.output
    port = int(browser.address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):  # The port is free.
        pass


async def test_the_console_of_a_program_imports_nothing_of_the_gateway(tmp_path: Path) -> None:
    script = (
        "import sys, trio, umbel.observe\n"
        "async def main():\n"
        "    async with umbel.observe.console(port=0, announce=len):\n"
        "        pass\n"
        "trio.run(main)\n"
        f"print([name for name in {FOREIGN} if name in sys.modules])\n"
    )
    assert await ended(PYTHON, "-c", script, cwd=tmp_path) == (0, "[]\n")
