"""slowhttptest against the server: during 300 slow connections the service stays available."""

from __future__ import annotations

import re

import pytest

from tests.external.conftest import Target, output

ATTACKS = {
    # slowhttptest's options, the path, and whether the server must close every connection within the test's 15 seconds.
    "slow heads": (["-H"], "/livez", True),
    "slow bodies": (["-B", "-s", "8192", "-f", "application/json"], "/echo", True),
    "slow reads": (["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "32", "-k", "3"], "/livez", False),
    "many ranges": (["-R"], "/livez", False),
}
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_service_stays_available(target: Target, attack: str) -> None:
    options, path, all_closed = ATTACKS[attack]
    command = ["slowhttptest", "-c", "300", "-r", "100", "-l", "15", "-p", "2", "-i", "1", *options]
    said = COLOURS.sub("", output([*command, "-u", f"{target.plain}{path}"]))
    assert set(re.findall(r"service available:\s*(YES|NO)", said)) == {"YES"}, said
    assert re.search(r"Test ended on \d+\w* second\s+Exit status: ", said), said
    if all_closed:
        assert "No open connections left" in said
