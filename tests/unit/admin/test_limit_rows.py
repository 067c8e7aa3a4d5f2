"""The sections of [limits] in the content of /status: the sums over all workers, on the page and in a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.unit.cli.instance.test_ctl import answering, ok
from umbel.admin.limit_rows import limit_rows
from umbel.admin.page import status_page
from umbel.cli import main

PER_IP = {
    "name": "per_ip",
    "shared": "worker",
    "keys": 3,
    "admitted": 10,
    "refused": 2,
    "evicted": 1,
    "waiting": 4,
    "delayed": 5,
}
LOGIN = {
    "name": "login",
    "shared": "machine",
    "keys": 4,
    "admitted": 0,
    "refused": 0,
    "evicted": 0,
    "waiting": 0,
    "delayed": 0,
}
PROCESS = {"pid": 7, "uptime_s": 65.0, "state": "serving", "summary": "well", "blocked": None}


def of_workers(*limits: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The slots of ``/status``; a worker that is None did not answer."""
    return {"slots": [{"workers": [{} if each is None else {"stats": {"app": {"limits": each}}} for each in limits]}]}


def test_a_row_has_the_sums_of_all_workers_in_the_order_of_the_configuration() -> None:
    assert limit_rows(of_workers([PER_IP, LOGIN], None, [PER_IP, LOGIN])) == [
        ("per_ip", "worker", 6, 20, 4, 2, 8, 10),
        ("login", "machine", 4, 0, 0, 0, 0, 0),
    ]


def test_a_row_has_the_keys_that_the_master_has_evicted() -> None:
    status = of_workers([PER_IP, LOGIN], [PER_IP, LOGIN])
    status["master"] = {"limits": {"login": {"keys": 7, "evicted": 5}}}
    assert [(row.name, row.evicted) for row in limit_rows(status)] == [("per_ip", 2), ("login", 5)]


def test_without_limits_or_an_answer_there_are_no_rows() -> None:
    for status in ({"process": {}}, {"slots": []}, of_workers(None), of_workers([])):
        assert limit_rows(status) == []
    assert b"Limits" not in status_page({"process": {}})


def test_the_page_and_ctl_status_show_the_rows(tmp_path: Path) -> None:
    shown = {"process": PROCESS, "app": {"limits": [PER_IP]}}
    assert (
        b"<td>per_ip</td><td>worker</td><td>3</td><td>10</td><td>2</td><td>1</td><td>4</td><td>5</td>"
        in status_page(shown)
    )
    with answering(tmp_path / "admin.sock", ok(json.dumps(shown).encode())):
        result = CliRunner().invoke(main, ["ctl", "status", "--socket", str(tmp_path / "admin.sock")])
    assert [line.split() for line in result.output.splitlines()[-2:]] == [
        ["LIMIT", "SHARED", "KEYS", "ADMITTED", "REFUSED", "EVICTED", "WAITING", "DELAYED"],
        ["per_ip", "worker", "3", "10", "2", "1", "4", "5"],
    ]
