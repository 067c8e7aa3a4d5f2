"""The coalescing key, for random plans: calls that take different values never share, and calls of equal values do."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import trio
import trio.testing
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.composition.composing import Scripted, facts
from tests.support.logs.records import Records
from tests.support.upstream.memory_calls import Asked, answer, coalescing
from umbel.composition.plan.compiler import compile_route
from umbel.composition.plan.never_sent import why_never_sent
from umbel.composition.plan_run import run
from umbel.config.schema.sections import Config, Upstream
from umbel.config.schema.values.types import _MANAGED
from umbel.core.call import block_of
from umbel.core.httpx_calls.transport_caller import TransportCaller
from umbel.core.model import Inputs

UPSTREAM = Upstream(urls=("http://h",))
_SUFFIXES = ["user", "for", "email", "id", "proto-x", "", "port", "host2", "server", "prefix"]
_LIKE_THE_GATEWAYS = [
    *(f"x-forwarded-{suffix}" for suffix in _SUFFIXES),
    *("x-request-id2", "x-request", "forwarded", "baggage", "b3", "x-b3-traceid", "traceparent2", "x-real-ip", "viaa"),
    *("x-envoy-upstream-rq-timeout-ms", "range", "if-none-match", "prefer", "accept", "accept-language", "x-amzn-oidc"),
    *("authorization", "x-client-cert", "from", "referer", "user-agent", "x-tenant", "cookie"),
]
TOKEN = "abcdefghijklmnopqrstuvwxyz0123456789-!#$&'+.^_`|~"
NAMES = (st.sampled_from(_LIKE_THE_GATEWAYS) | st.text(TOKEN, min_size=1, max_size=20)).filter(
    lambda name: name not in _MANAGED and why_never_sent(name, UPSTREAM) is None
)
VALUES = st.text("abAB01%,;=.:/-_", min_size=1, max_size=8).filter(lambda value: value not in (".", ".."))


OWN_IDS = {b"x-request-id", b"traceparent"}
"""Fields whose values differ for every call."""


class Place(NamedTuple):
    """Source and target of a value in a plan."""

    source: str
    target: str
    field: str


PLACES = st.builds(
    Place,
    st.sampled_from(["header", "query", "path", "body", "call"]),
    st.sampled_from(["header", "forwarded header", "path", "query", "params", "cookie", "forwarded query", "json"]),
    NAMES,
)


def call_of(place: Place) -> dict[str, Any]:
    """Configuration of a call that takes a value from the source and sends it in the target."""
    snake = place.field.replace("-", "_")
    reads = {
        "header": f"headers.{snake}",
        "query": "query.q",
        "path": "path.id",
        "body": "body.user",
        "call": "source.user",
    }
    # A field name that is no name of a template is replaced by a header with a plain name.
    name = reads[place.source] if snake.replace("_", "a").isalnum() and snake[0].isalpha() else "headers.x_any"
    match place.target:
        case "header":
            return {"with": {"v": name}, "path": "/t", "headers": {place.field: "{v}"}}
        case "forwarded header":
            return {"path": "/t", "forward_headers": [place.field]}
        case "path":
            return {"with": {"v": name}, "path": "/t/{v}"}
        case "query":
            return {"with": {"v": name}, "path": "/t{?v}"}
        case "params":
            return {"path": "/t", "params": {place.field: name}}
        case "cookie":
            return {"path": "/t", "forward_cookies": ["user"]}
        case "forwarded query":
            return {"path": "/t", "forward_query": ["q"]}
    return {"path": "/t", "method": "OPTIONS", "json": {"v": name}}


def inputs_of(value: str, field: str, number: int) -> Inputs:
    """A request with ``value`` in every source, from client number ``number``."""
    return Inputs(
        path={"id": value},
        query={"q": value},
        headers={field: value, field.replace("_", "-"): value, "x-any": value},
        body={"user": value},
        raw_query=f"q={quote(value)}".encode(),
        cookies={"user": value},
        request_id=f"r-{number}",
        forwarded=block_of([("Via", f"1.{number} fred, 1.1 umbel")]),
        forwarded_for=block_of(
            [
                ("X-Forwarded-For", f"192.0.2.{number}"),
                ("X-Forwarded-Proto", "http" if number else "https"),
                ("X-Forwarded-Host", f"h{number}"),
            ]
        ),
    )


async def ask_both(place: Place, values: tuple[str, str]) -> list[Asked]:
    """The requests that an upstream receives for two concurrent inbound requests with ``values``."""
    call = {"upstream": "u", **call_of(place)}
    calls: dict[str, Any] = {"taken": call}
    # A forwarded header may be a condition (Range), which only the one call of a route may forward.
    if place.source == "call" and place.target != "forwarded header":
        calls["source"] = {"upstream": "source", "path": "/{id}"}
    config = Config.model_validate(
        {
            "upstreams": {"u": {"urls": ["http://u"]}, "source": {"urls": ["http://s"]}},
            "routes": [{"path": "/r/<id>", "methods": ["POST"], "query": ["q"], "body": "json", "calls": calls}],
        }
    )
    plan = compile_route(config, 0)

    async def source(request: httpx.Request) -> httpx.Response:
        user = httpx.URL("http://s").join(request.extensions["target"].decode()).path.removeprefix("/")
        return httpx.Response(200, json={"user": user})

    async def act(asked: Asked) -> bytes:
        await trio.sleep(1)
        return answer(content=b"1")

    async with coalescing(act) as upstream, trio.open_nursery() as nursery:

        async def ask(number: int, value: str) -> None:
            callers = {"u": upstream.client, "source": TransportCaller(Scripted(source))}
            result = await run(plan, inputs_of(value, place.field, number), facts(), callers, Records())
            assert result.failure is None, result.failure
            assert result.answer["taken"] == 1

        for number, value in enumerate(values):
            nursery.start_soon(ask, number, value)
    return upstream.requests


def asked_for(place: Place, values: tuple[str, str]) -> list[Asked]:
    return trio.run(ask_both, place, values, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(PLACES, VALUES, VALUES)
@example(Place("query", "header", "x-forwarded-user"), "alice", "bob")
@example(Place("header", "forwarded header", "x-forwarded-user"), "alice", "bob")
@example(Place("call", "forwarded header", "range"), "0", "0")
def test_calls_are_shared_if_and_only_if_every_taken_value_is_equal(place: Place, first: str, second: str) -> None:
    asked = asked_for(place, (first, second))
    assert len(asked) == (1 if first == second else 2), place
    # Each value was sent: a field that is in the key and not sent would be wrong as well.
    if first != second:
        said = [each._replace(fields=[field for field in each.fields if field[0] not in OWN_IDS]) for each in asked]
        assert said[0] != said[1], place


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES, VALUES)
def test_a_field_that_a_plan_names_is_sent_with_its_value(name: str, value: str) -> None:
    (asked,) = asked_for(Place("header", "forwarded header", name), (value, value))
    assert (name.encode(), value.encode()) in asked.fields
    assert not any(field.startswith(b"x-forwarded-") for field, _ in asked.fields if field != name.encode())
