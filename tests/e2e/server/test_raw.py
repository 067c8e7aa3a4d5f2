"""Each raw request of the tables, over a socket, under both launchers: the expected response and one record.

After each case the worker is still the same process, and another client is served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.process.launched_workers import LAUNCHERS
from tests.support.server.raw_client import converse
from tests.support.server.raw_requests import CASES, Case
from tests.support.server.raw_server_process import Served, serving_raw
from tests.support.server.serving import fetch


@pytest.fixture(scope="module", params=LAUNCHERS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving_raw(request.param, tmp_path_factory.mktemp("raw")) as served:
        yield served


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_raw_request_gets_the_expected_response_and_one_record(served: Served, case: Case) -> None:
    server = served.server
    before = len(server.records())

    heard = await converse(server.port, case.sent)

    assert (tuple(heard.statuses), heard.rest) == (case.answers, b"")
    for reply in heard.replies:
        if reply.status >= 400:
            assert reply["content-type"] == "application/problem+json"
            assert reply["cache-control"] == "no-store"
            assert reply.json["status"] == reply.status
            assert reply.json["request_id"] == reply["x-request-id"]
    if case.refused:
        assert heard.replies[-1]["connection"] == "close"
    assert (await fetch(server.port, "GET", "/livez", [("connection", "close")])).status == 200
    records = await server.recorded(len(case.answers) + 1, skip=before)
    assert Counter(line["http.response.status_code"] for line in records) == Counter([*case.answers, 200])
    ids = {line["request_id"]: line for line in records}
    for reply in heard.replies:
        line = ids[reply["x-request-id"]]
        assert line["http.response.status_code"] == reply.status
        if case.refused or reply.status == 400:
            assert line["msg"], "the reason"
    assert server.lives
    assert not served.upstream_was_called()


async def test_no_raw_request_causes_a_crash(served: Served) -> None:
    """The cases that have run before this test have left no traceback in the output."""
    assert "Traceback" not in served.server.output
    assert served.server.complaints() == []


def test_the_tables_of_raw_requests_are_complete() -> None:
    assert len(CASES) >= 80
    assert len({case.sent for case in CASES.values()}) == len(CASES)
