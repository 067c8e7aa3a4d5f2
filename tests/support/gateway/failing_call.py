"""A failing call in two routes of the whole gateway: required in one, optional in the other.

``assert_fails`` requests both routes and checks the responses; ``assert_recorded`` checks the records, and that the
responses contain nothing internal.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.support.gateway.program import Program
from tests.support.server.serving import Reply
from tests.support.upstream.raw_server import Peer, RawServer, answering, response
from umbel.core.failure_kinds import KINDS, Kind

MAX_BODY = 100_000
"""The key ``max_body`` of the failing upstream, in bytes."""


class Fault(NamedTuple):
    """The failure of the call, and how the responses must show it."""

    kind: Kind
    error: str | None
    """The parameter ``error`` of Proxy-Status; None: the field has ``received-status`` instead."""
    received: int | None = None
    """The upstream's status, for a failure of kind ``status``."""
    passed: bool = False
    """Whether the response of the required route has the upstream's status."""

    @property
    def status(self) -> int:
        return self.received if self.passed and self.received is not None else KINDS[self.kind].status

    @property
    def proxy_status(self) -> str:
        told = f"received-status={self.received}" if self.error is None else f"error={self.error}"
        return f'umbel;{told};next-hop="part"'


async def steadily(peer: Peer) -> None:
    """The handler of the second upstream, whose call succeeds in both routes."""
    await answering(response(b'"steady"'))(peer)


def two_routes(steady: RawServer, url: str, keys: str = "", *, deadline: str = "5s") -> str:
    """A configuration with ``/required`` and ``/optional``; their call ``part`` goes to the upstream at ``url``."""
    calls = """
        [routes.calls.steady]
        upstream = "steady"
        path = "/"
        [routes.calls.part]
        upstream = "hidden-name"
        path = "/hidden-path"
    """
    return f'''
        [upstreams.steady]
        urls = ["http://127.0.0.1:{int(steady)}"]
        [upstreams.hidden-name]
        urls = ["{url}/hidden-base"]
        max_body = "{MAX_BODY}B"
        {keys}
        [defaults.route]
        deadline = "{deadline}"
        [[routes]]
        path = "/required"
        {calls}
        [[routes]]
        path = "/optional"
        {calls}
        optional = true
    '''


async def assert_fails(program: Program, fault: Fault) -> list[tuple[Reply, bytes]]:
    """Request both routes: one must answer with a problem document, the other with a partial result."""
    required, optional = replies = [await program.ask("/required"), await program.ask("/optional")]
    _assert_problem(required[0], fault)
    reply = optional[0]
    assert (reply.status, reply["content-type"]) == (200, "application/json")
    assert reply.json == {"steady": "steady", "part": None}
    for reply, _ in replies:
        assert reply["cache-control"] == "no-store"
        assert not reply.all("etag")
        assert reply["umbel-completed"] == "false"
        assert reply["proxy-status"] == fault.proxy_status
    return replies


def _assert_problem(reply: Reply, fault: Fault) -> None:
    assert (reply.status, reply["content-type"]) == (fault.status, "application/problem+json")
    problem = reply.json
    assert problem["type"] == f"urn:umbel:problem:{fault.kind}"
    assert problem["status"] == fault.status
    assert problem["request_id"] == reply["x-request-id"]
    (call,) = problem["calls"]
    assert call.pop("elapsed_ms") >= 0
    received = {} if fault.received is None else {"received_status": fault.received}
    assert call == {"name": "part", "kind": fault.kind, "status": fault.status, **received}


def assert_recorded(program: Program, fault: Fault, replies: list[tuple[Reply, bytes]], *secrets: str) -> None:
    """Assert one access record per request, one record per call, and no detail of a record or secret in a response."""
    ids = [reply["x-request-id"] for reply, _ in replies]
    access = program.lines("access")
    assert [line["request_id"] for line in access] == ids
    assert [line["http.response.status_code"] for line in access] == [fault.status, 200]
    assert [line.get("kind") for line in access] == [fault.kind, None]
    assert [line["completed"] for line in access] == [False, False]
    calls = program.lines("calls")
    assert sorted((line["request_id"], line["call"]) for line in calls) == sorted(
        (request_id, call) for request_id in ids for call in ("part", "steady")
    )
    details = [line["msg"] for line in calls if line["call"] == "part" and line["kind"] == fault.kind]
    assert len(details) == 2
    assert {line["event"] for line in program.lines("app")} == {"log.closed"}
    for request_id, (_, raw) in zip(ids, replies, strict=True):
        # The id is random, and may contain the digits of a port.
        text = raw.decode("latin-1").replace(request_id, "")
        for secret in (*details, *secrets, "127.0.0.1", "hidden", "Traceback", "Error", "httpx", "ypercorn"):
            assert secret not in text
