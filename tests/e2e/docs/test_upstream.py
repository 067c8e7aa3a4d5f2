"""docs/upstream.md: its code runs, and its tables agree with the code."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from tests.support.process.processes import PROJECT
from tests.support.source.wait_tables import check_waits
from tests.support.upstream.calls import url
from tests.support.upstream.nameserver import Zone, nameserver
from tests.support.upstream.raw_server import answering, raw_server, response
from umbel.core.failure_kinds import KINDS

DOC = (PROJECT / "docs" / "upstream.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
SAID = {
    "alone": "{'name': 'Ada'}\n",
    "layers": "{'name': 'Ada'}\n",
    "statistics": "0 1\n",
    "dns": "['http://users.test:8080 at 127.0.0.1'] \n",
    "cancelled": "0\n",
}


@pytest.mark.parametrize(("block", "said"), list(zip(BLOCKS, SAID.values(), strict=True)), ids=SAID)
async def test_a_code_block_runs_and_prints_the_expected_output(
    block: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = answering(response(b'{"name":"Ada"}', b"Content-Type: application/json"))
    async with raw_server(answer) as server, nameserver({"users.test": Zone(a=["127.0.0.1"])}) as names:
        text = block.replace("http://users.test/", f"{url(server)}/")
        text = text.replace('("127.0.0.1", 53)', repr(names.at[0]))
        code = compile(text, "docs/upstream.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        done = eval(code, {})
        if inspect.isawaitable(done):
            await done
    assert capsys.readouterr().out == said


def test_the_five_lines_of_code_are_five() -> None:
    assert len(BLOCKS[0].splitlines()) == 5


def _row(cells: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in cells.strip().strip("|").split("|"))


def test_the_table_of_failures_agrees_with_the_code() -> None:
    table = DOC.partition("## What a failure is called")[2]
    rows = [_row(line) for line in table.splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == [kind.value for kind in KINDS]
    for (kind, rule), (_, status, proxy_error, retryable, counts) in zip(KINDS.items(), rows, strict=True):
        if kind != "dependency":
            assert status.startswith(str(rule.status)), kind
        assert proxy_error == (rule.proxy_error or ""), kind
        assert (retryable != "no") is rule.retryable, kind
        assert (counts != "no") is rule.counts, kind


def test_every_wait_has_a_timeout_and_an_existing_test() -> None:
    check_waits(DOC.partition("## Every wait for an upstream")[2].partition("\n## ")[0], 12)


def test_every_link_leads_to_a_file_or_a_heading() -> None:
    links = re.findall(r"\]\(([^)]+)\)", DOC)
    headings = {
        heading.lower().replace(" ", "-").replace(",", "") for heading in re.findall(r"^#+ (.*)$", DOC, re.MULTILINE)
    }
    files = [link for link in links if not link.startswith("#")]
    assert [link for link in links if link.startswith("#") and link[1:] not in headings] == []
    # This file exists only after the benchmark has run.
    missing = [link for link in files if not (PROJECT / "docs" / link).exists()]
    assert missing in ([], ["../benchmarks/upstream.md"])
