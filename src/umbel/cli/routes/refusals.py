"""Refusals of a request for its head or its values, by the server's and the gateway's own checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...composition.plan.plan import Plan
from ...config.schema.sections import Config
from ...core.errors import RequestError
from ...core.http.probe_paths import PROBES
from ...core.model import Json
from ...gateway.request.inputs import check_no_if_match
from ...gateway.request.request_body import check_coding, check_length, check_media_type, known_length
from ...gateway.request.request_fields import RequestFields
from ...server.http1.head_errors import HeadError
from ...server.http1.host import Hosts
from ...server.http1.request_body import too_large
from ...server.limits.server_limits import Limits
from .matching import Match, NoMatch, Query, context_of, location_of, read_query


def refused_head(config: Config, method: str, path: str, asked: Sequence[tuple[str, str]]) -> NoMatch | None:
    """Return the refusal of the server for the names of the header fields ``asked`` or for Host; None without one.

    A request without Host is treated as one for a host that is served.
    """
    server = config.server
    if server.underscore_headers == "reject" and any("_" in name for name, _ in asked):
        return NoMatch(400, "the name of a header field has an underscore, and underscore_headers is reject")
    hosts = [value.encode() for name, value in asked if name.lower() == "host"]
    try:
        is_served = Hosts(server.hosts).serve(hosts, required=False)
    except HeadError as error:
        return NoMatch(error.error_response.status, error.error_response.detail)
    is_probe = method in ("GET", "HEAD") and path.partition("?")[0] in {*PROBES, *server.probes}
    return None if is_served or is_probe else NoMatch(421, "the host is not in hosts of [server]")


class Inputs(NamedTuple):
    """What a route reads from a request that it does not refuse."""

    query: Query
    location: str
    """The Location of a redirect; empty if the route is none."""
    context: Mapping[str, Json]
    """The evaluation context, without a body."""


def read_inputs(
    config: Config, plan: Plan, found: Match, method: str, path: str, asked: Sequence[tuple[str, str]], client: str = ""
) -> Inputs | NoMatch:
    """Read the inputs of a request with the header fields ``asked``; return ``NoMatch`` if the route refuses it.

    ``client`` is the address of the client; empty: unknown.
    """
    fields = RequestFields([(name.lower().encode(), value.encode()) for name, value in asked])
    length, max_body = known_length(fields), config.server.max_body
    if plan.proxy is None and length is not None and length > max_body:
        return NoMatch(413, too_large(Limits(max_body=max_body)).detail)
    query = read_query(plan, path)
    try:
        if plan.static is None and plan.proxy is None and not plan.takes_if_match:
            check_no_if_match(method, fields)
        if isinstance(query, NoMatch):
            return query
        _check_body(plan, fields, max_body)
    except RequestError as error:
        return NoMatch(error.status, error.detail)
    context = context_of(plan, found.values, query.values, asked, client)
    location = location_of(plan, context, path.partition("?")[2])
    return location if isinstance(location, NoMatch) else Inputs(query, location, context)


def _check_body(plan: Plan, fields: RequestFields, max_body: int) -> None:
    """Check the body by the fields about it. A field that the request has not is treated as one that fits.

    Raises:
        RequestError: 413 or 415, the route refuses the body.
    """
    if not plan.uses_body:
        return
    coding = check_coding(fields, plan.route.body)
    if "content-type" in fields.by_name:
        check_media_type(fields, plan.route.body)
    check_length(known_length(fields), min(plan.route.max_body, max_body), coded=coding is not None)
