"""The sections of umbel.toml and their keys as frozen pydantic models, with the constraints between keys.

The docstrings of classes and keys are the texts of docs/config.md and of the JSON Schema. Checks that need a compiled
route are in ``composition/plan/compiler.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from ...core.http.forward_all import STAR, star_leaves_out
from ...core.product import PRODUCT
from .access.auth import Auth, AuthName, AuthNames, Scope
from .access.limits import Limit as Limit
from .access.limits import LimitName, LimitNames
from .browsers import Cors as Cors
from .browsers import ResponseHeaders as ResponseHeaders
from .compress import Compress as Compress
from .constraints import ConstraintViolation, enforce
from .policies import Breaker, Ejection, Health, Hedge, Retry, WeightedUrl
from .process.admin import Admin as Admin
from .process.server import Server as Server
from .process.supervisor import Supervisor as Supervisor
from .process.traces import Traces as Traces
from .proxy import Proxy as Proxy
from .query_params import QueryParam as QueryParam
from .section import AS_TUPLE, Section
from .static_answers import Redirect as Redirect
from .static_answers import Respond as Respond
from .traffic import Mirror as Mirror
from .traffic import Split, traffic_constraints
from .values.defaults import LOGS_DIR
from .values.types import (
    AS_SOURCE,
    BaseUrl,
    BoundName,
    CallName,
    Concurrency,
    CookieName,
    ExpressionText,
    FileName,
    ForwardedCookie,
    ForwardedHeader,
    ForwardedParam,
    HeaderName,
    Headers,
    HeaderText,
    JsonValue,
    Method,
    PassedStatus,
    RouteHost,
    RoutePath,
    ServedHost,
    Status,
    UpstreamName,
    UserAgent,
)
from .values.units import Duration, Ratio, Size

Names = Annotated[tuple[str, ...], AS_TUPLE]
Statuses = Annotated[tuple[Status, ...], AS_TUPLE]
KeyPath = tuple[str | int, ...]
Scopes = Annotated[tuple[Scope, ...], AS_TUPLE]
PUBLIC = ("none",)
"""The value of ``auth`` of a route that is open to anybody."""


def _tls_constraints(tls: Tls) -> Iterator[ConstraintViolation]:
    """Yield a violation if only one of a client certificate and its key is given."""
    if (tls.cert is None) != (tls.key is None):
        given, other = ("key", "cert") if tls.cert is None else ("cert", "key")
        yield ConstraintViolation(f"{given} needs {other} beside it: write both or neither", (given, other))


class Tls(Section):
    """TLS settings for connections to an upstream with https URLs."""

    ca: str | None = None
    """A file of CA certificates (PEM) to trust instead of the system's."""
    cert: str | None = None
    """A file with the client certificate (PEM)."""
    key: str | None = None
    """A file with the private key (PEM) of the client certificate."""
    server_name: str | None = None
    """The name that is sent as SNI and verified in the certificate. Default: the name in host of the upstream, else the
    host of the URL."""

    _checked = model_validator(mode="after")(enforce(_tls_constraints))


class Constant(Section):
    """A constant in the place of an expression: { value = 1 } gives the number 1."""

    value: JsonValue
    """The value. A text in it is no expression."""


Source = Annotated[str | Constant, AS_SOURCE]
"""The source of a value: a JMESPath expression or a constant."""


def _upstream_constraints(upstream: Upstream) -> Iterator[ConstraintViolation]:
    """Yield the violations of an upstream: weights without balance = "weighted", and a replica that is given twice."""
    weighted = any("weight" in replica.model_fields_set for replica in upstream.replicas)
    if weighted and upstream.balance != "weighted":
        yield ConstraintViolation('weights have an effect only with balance = "weighted"', ("urls", "balance"))
    names = [replica.url for replica in upstream.replicas]
    if len(set(names)) < len(names):
        yield ConstraintViolation("a replica is given twice; write it once with a weight", ("urls",))


class Upstream(Section):
    """A named HTTP service: its replicas (base URLs), limits and policies."""

    urls: Annotated[tuple[BaseUrl | WeightedUrl, ...], Field(strict=False, min_length=1)]
    """The replicas: http://, https:// or unix: URLs without credentials, or {url, weight} tables. A dns+http:// or
    dns+https:// URL means one replica per DNS address of its host name (hosts files are not read)."""
    host: ServedHost | None = None
    """The value of the field Host in calls and health checks, such as "api.internal", with or without a port. Its name
    is also the TLS server name, unless tls.server_name is written. Default: the host and port of the URL."""
    timeout: Duration | None = None
    """The timeout of a whole call, with its time in the queue. Default: the time left to the route's deadline."""
    connect_timeout: Duration = 1.0
    """The timeout of making a connection: DNS, TCP and TLS handshake together."""
    max_concurrency: Concurrency = 100
    """The most calls in flight at once. Further calls wait in the queue of the upstream. "auto" adapts the limit to
    the measured latency."""
    max_queue: Annotated[int, Field(ge=0)] | None = None
    """The most requests whose calls may wait in the queue. All calls of a request count as one. A call of a further
    request fails at once with kind overflow. Default: max_in_flight of [server], so that no call is refused while the
    upstream works; 40 % of that while the upstream has completed no call for 1 s."""
    limits: LimitNames = ()
    """The names of sections [limits.NAME] of which each call spends, and each retry, hedge and redirect. A call over a
    limit waits, at most up to its deadline, and fails at once with kind overflow if its turn would come too late; a
    retry or hedge over it is not made. Copies (mirror) and health checks spend nothing."""
    max_streams: Annotated[int, Field(ge=1)] = 1000
    """The most responses of proxy routes that are streams at once: server-sent events, WebSockets, and bodies that take
    longer than 5 s. They do not count in max_concurrency."""
    keepalive_expiry: Duration = 4.0
    """The time for which an idle connection is kept for reuse."""
    max_body: Size | None = None
    """The largest response body after decompression. A JSON body may hold one value for each 5 bytes of this limit, and
    at least 200000 values. Default: 1MB for decode = "json", else 10MB."""
    max_head: Size = 64 * 1024
    """The largest head of a response."""
    max_fields: Annotated[int, Field(ge=1)] = 100
    """The most header fields of a response."""
    headers: Headers = {}
    """Header fields of every call, as templates."""
    params: dict[str, Source] = {}
    """Query parameters of every call, as JMESPath expressions or constants."""
    tls: Tls = Field(default_factory=Tls)
    """TLS settings for https URLs."""
    public_only: bool = False
    """Whether private and loopback addresses are refused. Link-local and multicast addresses are always refused."""
    retry: Retry | None = None
    """Further attempts of failed calls. Default: no retries."""
    retry_budget: Ratio = 0.2
    """The most retries and hedges in flight, as a share of the calls in flight; at least 3 are always allowed."""
    hedge: Hedge | None = None
    """A second attempt beside a slow first one. Default: no hedges."""
    breaker: Breaker | None = None
    """A circuit breaker: calls fail at once while most attempts fail. Default: no breaker."""
    ejection: bool | Ejection = True
    """Outlier ejection: a replica with several failures in a row gets no attempts for a while. Without effect with one
    replica."""
    balance: Literal["p2c", "round_robin", "weighted"] = "p2c"
    """The choice of the replica of an attempt. p2c: the less loaded of two random replicas; round_robin: each in turn;
    weighted: by weight."""
    redirects: Literal["fail", "pass", "follow"] = "fail"
    """What a redirect (3xx but 304) means. fail: the call fails. pass: the answer takes it over, as if pass_status
    named its status. follow: the call follows at most 5 redirects (301, 302, 303, 307, 308), within its time, to the
    same origin and within the base URL; any other redirect fails. Such calls are not coalesced."""
    coalesce: bool = False
    """Whether identical safe calls in flight at the same time share one call to the upstream."""
    health: Health | None = None
    """Regular health checks of the replicas. Default: no checks."""
    deadline_header: HeaderName | Literal[False] = "x-envoy-expected-rq-timeout-ms"
    """The header field that tells the upstream the remaining time in milliseconds; false: none is sent."""
    forwarded: bool = True
    """Whether X-Forwarded-For, X-Forwarded-Proto and X-Forwarded-Host are sent."""
    user_agent: UserAgent | None = None
    """The User-Agent of calls and health checks; many APIs refuse requests without one. "off": none is sent. A
    user-agent in headers, or the client's by forward_headers, replaces it. Default: umbel/ and the version of Umbel."""

    _checked = model_validator(mode="after")(enforce(_upstream_constraints))

    @property
    def product(self) -> bytes:
        """The User-Agent of a call that sets none; empty: none is sent."""
        return b"" if self.user_agent == "off" else (self.user_agent or PRODUCT).encode("ascii")

    @property
    def replicas(self) -> tuple[WeightedUrl, ...]:
        """The replicas as tables, also those that were written as URLs."""
        return tuple(each if isinstance(each, WeightedUrl) else WeightedUrl(url=each) for each in self.urls)


def _call_constraints(call: Call) -> Iterator[ConstraintViolation]:
    """Yield the violations of the constraints between the keys of one call."""
    given = call.model_fields_set
    bodies = [
        name
        for name, stands in (
            ("json", call.json_ is not None),
            ("form", call.form is not None),
            ("forward_body", call.forward_body),
        )
        if stands
    ]
    if len(bodies) > 1:
        yield ConstraintViolation(
            "json, form and forward_body exclude each other: a call has one body", (bodies[1], *bodies)
        )
    if bodies and call.method in ("GET", "HEAD"):
        yield ConstraintViolation(f"a {call.method} call has no body; write another method", ("method", bodies[0]))
    if call.each is None:
        for field, key in (
            ("as_", "as"),
            ("limit", "limit"),
            ("max_items", "max_items"),
            ("item_default", "item_default"),
        ):
            if field in given:
                yield ConstraintViolation(
                    f"{key} is about the items of an each, but this call has no each", (key, "each")
                )
    default = "default" if "default" in given else "default_null"
    if call.default_null and default == "default":
        yield ConstraintViolation("default and default_null exclude each other", ("default_null", "default"))
    if call.has_default and not call.optional and call.when is None:
        yield ConstraintViolation(
            "a default has an effect only in a call with optional = true or with when", (default, "optional", "when")
        )
    if "item_default" in given and call.each is not None and not call.optional:
        yield ConstraintViolation(
            "item_default has an effect only in a call with optional = true: a required each fails if an item fails",
            ("item_default", "optional"),
        )
    for key, names in (("forward_query", call.forward_query), ("forward_cookies", call.forward_cookies)):
        if STAR in names and len(names) > 1:
            yield ConstraintViolation(f'"*" in {key} means all of them; remove the other names', (key,))
    if STAR in call.forward_headers:
        sent = [name for name in call.forward_headers if name != STAR and not star_leaves_out(name)]
        if sent:
            yield ConstraintViolation(
                f'"*" in forward_headers sends "{sent[0]}" already; write beside it only fields that it leaves out,'
                " such as authorization",
                ("forward_headers",),
            )
    for key, value in (("upstream", call.upstream), ("path", call.path)):
        if value is None and call.respond is None:
            yield ConstraintViolation("is missing", (key,))
    yield from traffic_constraints(call.upstream, call.split, call.split_key, call.mirror)
    if both := set(call.ok) & set(call.null_on):
        yield ConstraintViolation(f"{min(both)} is in ok and in null_on; remove it from one", ("null_on", "ok"))


class Call(Section):
    """A call: one logical request of a route to an upstream."""

    upstream: UpstreamName | None = None
    """The name of the upstream. Only a call with respond needs none."""
    path: str | None = None
    """The path and query of the request, as an RFC 6570 template with the forms {name}, {?a,b} and {&a,b}. Only a call
    with respond needs none."""
    respond: Respond | None = None
    """The response to the call, in place of one from the upstream: nothing is sent. All other keys keep their effect on
    the call and its result, except those of an upstream (retry, hedge, coalesce, split, mirror, and redirects =
    "follow")."""
    split: Split = {}
    """Other upstreams that get a share of this call's requests in place of upstream, such as { v2 = "10%" }. upstream
    gets the rest. The headers, params, limits and policies of a call are those of the upstream that is chosen."""
    split_key: ExpressionText | None = None
    """A JMESPath expression on the request (path, query, headers, cookies, client.ip). Requests with the same value go
    to the same upstream, in every worker and after a restart. Default, and if the value is null or empty: each request
    goes to an upstream chosen at random."""
    mirror: Mirror | None = None
    """Copies of this call's requests to another upstream, after the answer was sent. Default: no copies."""
    method: Method | None = None
    """The method of the request. Default: GET; POST with json, form or forward_body."""
    json_: Annotated[str | dict[str, Source] | None, Field(alias="json")] = None
    """The JSON body: a JMESPath expression, or a table of expressions and constants."""
    form: str | dict[str, Source] | None = None
    """The form body: a JMESPath expression that gives an object, or a table of expressions and constants."""
    with_: Annotated[dict[BoundName, Source], Field(alias="with")] = {}
    """Names for the templates of this call, each with a JMESPath expression or a constant for its value."""
    params: dict[str, Source] = {}
    """Query parameters, each a JMESPath expression or a constant. Their names may be of any characters."""
    headers: Headers = {}
    """Header fields, as templates. They add to those of the upstream, and replace those of the same name."""
    forward_headers: Annotated[tuple[ForwardedHeader, ...], AS_TUPLE] = ()
    """Header fields of the client's request to send on. "*": all except those listed under "Forwarding". Default: none,
    since an upstream should know no more about a client than it needs."""
    forward_query: Annotated[tuple[ForwardedParam, ...], AS_TUPLE] = ()
    """Query parameters of the client's request to send on, unchanged and in their order. "*": the whole query."""
    forward_cookies: Annotated[tuple[ForwardedCookie, ...], AS_TUPLE] = ()
    """Cookies of the client's request to send on. "*": all."""
    forward_body: bool = False
    """Whether the client's body is sent on unchanged, with its Content-Type and, if body is bytes, its
    Content-Encoding. (In the other forms the body has been decoded.)"""
    timeout: Duration | None = None
    """The timeout of this call (of each item, with each), instead of the upstream's."""
    max_body: Size | None = None
    """The largest response body of this call, instead of the upstream's limit."""
    optional: bool = False
    """Whether the answer is sent also if this call fails. The failure of a required call decides the answer."""
    default: JsonValue = None
    """The value if an optional call fails or a call is skipped. Calls that depend on it are then made."""
    default_null: bool = False
    """Whether the default is null. (TOML has no null that could be written as default.)"""
    when: ExpressionText | None = None
    """A JMESPath expression. If it gives false, null or an empty text, list or object, the call is skipped, and the
    answer counts as complete."""
    each: ExpressionText | None = None
    """A JMESPath expression that gives a list. One call is made per distinct value, which templates read as {item}."""
    as_: Annotated[Literal["list", "map"], Field(alias="as")] = "list"
    """The value of a call with each. list: the results, at the indices of their items; map: an object with the items as
    keys. Keys are texts: the number 1 and the text "1" are one key, and the later result stays."""
    limit: Annotated[int, Field(ge=1)] = 16
    """The most items of an each in flight at once."""
    max_items: Annotated[int, Field(ge=1)] = 100
    """The longest list of an each. With a longer list the call fails with kind too-many: 400 if the list is the
    client's, else 502."""
    item_default: JsonValue = None
    """The result of a failed item of an optional each. Default: null."""
    decode: Literal["json", "text", "none"] = "json"
    """How the response body becomes a value. none: the body is read and dropped, and the value is null."""
    ok: Statuses = ()
    """The statuses of success. Default: every 2xx."""
    null_on: Statuses = ()
    """Statuses for which the call succeeds with the value null."""
    pass_status: Annotated[tuple[PassedStatus, ...] | None, AS_TUPLE] = None
    """3xx, 4xx and 5xx statuses that the answer takes over if a required call fails with them, with the header fields
    that belong to them. Default: 400, 403, 404, 409, 410, 412, 422, 429, and 401 if the call carries a credential of
    the client."""
    redirects: Literal["fail", "pass", "follow"] | None = None
    """What a redirect means, instead of the upstream's redirects."""
    retry: Retry | None = None
    """Further attempts of this call, instead of the upstream's retry."""
    hedge: Hedge | None = None
    """A second attempt beside a slow first one, instead of the upstream's hedge."""
    coalesce: bool | None = None
    """Whether this call may share a call with identical ones, instead of the upstream's coalesce."""
    pass_body: bool = False
    """Whether the answer also takes over the error body of a status in pass_status, instead of a problem document."""

    _checked = model_validator(mode="after")(enforce(_call_constraints))

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The upstreams of which one gets the request: that of the call, and those of its split."""
        return (*(() if self.upstream is None else (self.upstream,)), *self.split)

    @property
    def has_default(self) -> bool:
        """Whether the call has a default, which may be null."""
        return self.default_null or "default" in self.model_fields_set


class Answer(Section):
    """How the outcomes of the calls become one answer."""

    shape: ExpressionText | None = None
    """A JMESPath expression over the context that gives the body. Default: an object of the calls' values by name."""
    status: Annotated[int, Field(ge=200, le=299)] = 200
    """The status of an answer without a deciding failure. 204 sends no body."""
    status_from: str | None = None
    """The call whose status 201, 202 or 204 the answer takes over, with its Location. Any other status of success gives
    the answer the status in status. A stream has the status 200, since its head is sent before the call has ended."""
    headers: Headers = {}
    """Header fields of the answer, as templates."""
    forward_headers: dict[str, Annotated[tuple[HeaderName, ...], AS_TUPLE]] = {}
    """By call, the header fields of its response that the answer gets."""
    forward_cookies: dict[str, Annotated[tuple[CookieName, ...], AS_TUPLE]] = {}
    """By call, the cookies set by its response that the answer sets."""
    cache_control: HeaderText = "parts"
    """The Cache-Control of a complete answer. parts: the most restrictive directives of the responses, and private if
    the request has a cookie or authorization. An answer is always private if it sets a cookie or a response is private,
    and always no-store if a response is no-store."""
    etag: bool = True
    """Whether a complete answer has a strong ETag, and If-None-Match is answered with 304."""


def _route_constraints(route: Route) -> Iterator[ConstraintViolation]:
    """Yield the violations of the constraints between the keys of one route."""
    yield from _answering_constraints(route)
    yield from _access_constraints(route)
    if route.combine == "quorum" and route.quorum is None:
        yield ConstraintViolation('combine = "quorum" needs quorum, a number of successes', ("combine", "quorum"))
    for name in route.query_params:
        if STAR in name:
            yield ConstraintViolation(
                f'"{name}" is no name of a parameter; write each parameter that the route reads, or'
                ' forward_query = ["*"] in a call to send on all of them',
                ("query",),
            )
    if route.combine != "quorum" and route.quorum is not None:
        yield ConstraintViolation('quorum has an effect only with combine = "quorum"', ("quorum", "combine"))


def _access_constraints(route: Route) -> Iterator[ConstraintViolation]:
    """Yield the violations of the keys that say who may call the route."""
    if route.auth is not None and len(route.auth) > 1 and "none" in route.auth:
        yield ConstraintViolation(
            '"none" lets anybody in, so the other names have no effect; write it alone, or remove it', ("auth",)
        )
        return
    if route.auth is not None and route.auth != PUBLIC:
        for name in dict.fromkeys(each for each in route.auth if route.auth.count(each) > 1):
            yield ConstraintViolation(f'"{name}" is given twice; write it once', ("auth",))
        return
    for key, value in (("scopes", route.scopes), ("scopes_any", route.scopes_any), ("allow", route.allow)):
        if value:
            missing = "has no auth" if route.auth is None else 'needs none, since it has auth = "none"'
            yield ConstraintViolation(
                f"{key} is about the credential of a request, but the route {route.path} {missing}; write the names of"
                f" sections [auth.NAME] into auth, or {'remove allow' if key == 'allow' else f'{key} = []'}",
                (key, "auth"),
            )


_KEYS_OF_COMPOSED: tuple[str, ...] = ("shape", "status", "status_from", "headers", "forward_headers", "forward_cookies")
"""The keys of answer that are about calls only."""


def _answering_constraints(route: Route) -> Iterator[ConstraintViolation]:
    """Yield the violations of the choice what answers: calls or a shape, ``respond``, ``redirect``, or ``proxy``."""
    whole = (("respond", route.respond), ("redirect", route.redirect), ("proxy", route.proxy))
    static = [key for key, value in whole if value is not None]
    if not (static or route.calls or route.answer.shape is not None):
        keys = ("calls", "answer", "respond", "redirect", "proxy")
        yield ConstraintViolation("a route needs calls, or one of answer.shape, respond, redirect and proxy", keys)
    if not route.calls and route.stream:
        yield ConstraintViolation("a stream sends the outcomes of calls, but this route has none", ("stream", "calls"))
    if not route.calls and route.combine != "all":
        yield ConstraintViolation("combine counts calls, but this route has none", ("combine", "calls"))
    if not static:
        return
    if len(static) > 1:
        yield ConstraintViolation(
            f"{static[0]} and {static[1]} exclude each other: a request has one answer", (static[1], static[0])
        )
    if route.calls:
        yield ConstraintViolation(f"a route with {static[0]} makes no calls; remove one of both", (static[0], "calls"))
    unused = _KEYS_OF_COMPOSED if route.proxy is None else tuple(Answer.model_fields)
    composed = [key for key in unused if key in route.answer.model_fields_set]
    if composed:
        yield ConstraintViolation(
            f"{composed[0]} of answer has no effect in a route with {static[0]}; remove it", ("answer", static[0])
        )
    yield from _proxied_methods_constraints(route)
    if route.respond is not None and route.respond.delay > route.deadline:
        yield ConstraintViolation(
            "the delay of respond is longer than the deadline; write a longer deadline", ("respond", "deadline")
        )


def _proxied_methods_constraints(route: Route) -> Iterator[ConstraintViolation]:
    """Yield the violations of a proxy route whose methods leave parts of ``proxy`` without effect."""
    if route.proxy is None or route.methods is None:
        return
    methods = {*route.methods, *(("HEAD",) if "GET" in route.methods else ())}
    if route.proxy.websocket and "GET" not in methods:
        yield ConstraintViolation(
            "a WebSocket begins with a GET, which methods leaves out; add GET, or remove websocket",
            ("proxy", "methods"),
        )
    if route.proxy.mirror is not None and methods.isdisjoint(route.proxy.mirror.methods):
        yield ConstraintViolation(
            "mirror copies only methods that the route does not have; write some of them in mirror.methods",
            ("proxy", "methods"),
        )


class Route(Section):
    """A method and path of inbound requests, and the composition that answers them."""

    path: RoutePath
    """The path, as a werkzeug rule such as /dashboard/<user_id> or /items/<int:id>."""
    host: RouteHost | None = None
    """The host that a request must be for, such as "shop.example" or "*.shop.example" (* stands for one label), for all
    ports or with one. It is compared before the path: a route for the host goes before those with a wildcard, and these
    before routes without a host. Behind a trusted proxy it is the host that the proxy reports. Default: any host."""
    match: ExpressionText | None = None
    """A JMESPath expression over headers and query that a request must fulfil, such as "headers.x_beta == 'on'". Of
    routes with the same host, path and method the first that matches answers, in the order of the configuration; the
    one without match is the last. Parameters are texts. The fields that it reads go into Vary. Default: none."""
    encoded_slash: Literal["refuse", "keep"] = "refuse"
    """What happens to a request with an encoded slash (%2F) in its path. refuse: it gets 400, since a proxy in front
    may read another path; keep: the value of a variable may hold a slash, and calls get it encoded, as one segment."""
    methods: Annotated[tuple[Method, ...] | None, Field(strict=False, min_length=1)] = None
    """The methods of the route; GET includes HEAD. Default: GET, or POST if the route uses the body; with proxy all but
    CONNECT and TRACE, as far as no other route with the same host and path names them."""
    query: dict[str, QueryParam] | Names = {}
    """The query parameters that the route reads: a table, or a list of names for parameters of type str. Other
    parameters are ignored."""
    auth: AuthNames | None = None
    """The names of sections [auth.NAME]: the request must have a credential of one of them, else it gets 401. none:
    states that anybody may call the route. Default: no statement, which lets anybody in; see the key hooks of
    [server]."""
    scopes: Scopes = ()
    """The scopes that the credential must grant, all of them, else the request gets 403."""
    scopes_any: Scopes = ()
    """Scopes of which the credential must grant at least one, else the request gets 403."""
    allow: ExpressionText | None = None
    """A JMESPath expression over auth, path, query, headers, cookies and client that the request must fulfil, such as
    "auth.claims.tenant == path.tenant", else it gets 403. Default: none."""
    limits: LimitNames = ()
    """The names of sections [limits.NAME] that a request must conform to, each of them, else it gets 429 and spends
    nothing of those that are decided together. Default: none."""
    deadline: Duration = 5.0
    """The time from the request, with its body, to its answer. At the deadline the calls under way are ended, and the
    answer is sent with the values so far; without the value of a required call it is a failure."""
    combine: Literal["all", "first", "quorum"] = "all"
    """Which calls make the answer: all calls, the first success, or the first quorum successes."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """The number of successes for combine = "quorum"."""
    stream: bool = False
    """Whether each outcome is sent as a line as soon as its call ends: as NDJSON, or as SSE if the client asks.
    The last line has the answer or the problem document. A failure with which the composition ends at once is in that
    document only, so that the response is an ordinary problem document if no other line was sent before."""
    max_body: Size = 10**6
    """The largest request body, also once its content coding is removed. A form may have one field for each 1000 bytes
    of this limit, and at least 1000 fields; a JSON body one value for each 5 bytes, and at least 200000 values."""
    max_steps: Annotated[int, Field(ge=1)] = 200_000
    """The most steps of one evaluation of an expression. 2,000 steps block the worker for about a millisecond."""
    body: Literal["json", "form", "bytes"] = "json"
    """The form of the request body: JSON, a form, or any bytes (in any content coding) that a call forwards. JSON and
    forms may come in gzip, deflate, zstd or br; they may decode to at most 100 times their size."""
    expose: Literal["full", "completed", "none"] = "full"
    """Which diagnostic header fields clients get. full: all; completed: only Umbel-Completed; none: none."""
    compress: bool = True
    """Whether [compress] applies to this route. Write false if an answer holds a secret beside a text that the client
    chooses: the length of a compressed answer can betray the secret (BREACH)."""
    krakend_compat: bool = False
    """Whether X-KrakenD-Completed is sent too. It is false for every error of the route, also 404 and 405, as in
    KrakenD. Default: false, since Umbel-Completed holds the same information."""
    calls: Annotated[dict[CallName, Call], Field(min_length=1, default_factory=dict)]
    """The calls by name. Their order is the order of the answer. Without calls, answer.shape makes the answer of the
    request alone."""
    respond: Respond | None = None
    """A response that answers every request, instead of calls."""
    redirect: Redirect | None = None
    """A redirect that answers every request, instead of calls."""
    proxy: Proxy | None = None
    """An upstream to which every request is passed on as it is, instead of calls."""
    cors: Cors | Literal[False] | None = None
    """The CORS rules of this route, in place of [cors] as a whole. false: the gateway leaves CORS to the route."""
    answer: Answer = Field(default_factory=Answer)
    """How the outcomes of the calls become one answer."""

    _checked = model_validator(mode="after")(enforce(_route_constraints))

    @property
    def query_params(self) -> dict[str, QueryParam]:
        """The declared query parameters as tables, also those that were written as a list of names."""
        if isinstance(self.query, dict):
            return self.query
        return {name: QueryParam() for name in self.query}


class LogStream(Section):
    """One stream of records."""

    file: FileName | None = None
    """The name of the file in dir; "-": stdout. Default: access.jsonl, calls.jsonl or app.jsonl."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """The lowest level: records below it are not made."""
    sample: Ratio = 1.0
    """The share of the records below warning that is kept. The records of one request are kept or left out together, in
    all streams. Slow requests and calls are always kept."""
    slow: Duration = 1.0
    """The time from which on a request or a call counts as slow."""
    overflow: Literal["drop_new", "drop_oldest"] = "drop_new"
    """Which record below warning is dropped if the queue is full: the new one or the oldest one. Dropped records are
    counted, and the count is written to the log."""


class AccessLogStream(LogStream):
    """The stream with the records of requests."""

    file: FileName | None = None
    """The name of the file in dir; "-": stdout. Default: access.jsonl, or access.log in the format combined."""
    format: Literal["json", "combined"] = "json"
    """The format of the lines. combined: the one of Apache and nginx, without durations, routes and calls."""
    probes: bool = False
    """Whether probes that succeed are recorded (/livez, /readyz and the probes of [server]). Failed ones always are."""


class CallsLogStream(LogStream):
    """The stream with the records of calls."""

    which: Literal["notable", "all", "off"] = "notable"
    """Which calls have a record of their own. notable: calls that failed, were retried or hedged, or were slow; all:
    every call; off: none. The record of the request names every call in any case."""


class Logs(Section):
    """The logs: files of JSON lines, one record per line."""

    dir: str = LOGS_DIR
    """The directory of the files, relative to the configuration file. It is made if it does not exist."""
    access: AccessLogStream = Field(default_factory=AccessLogStream)
    """One record per request. Default: the file access.jsonl."""
    calls: CallsLogStream = Field(default_factory=CallsLogStream)
    """One record per notable call. Default: the file calls.jsonl."""
    app: LogStream = Field(default_factory=LogStream)
    """All other records. Default: the file app.jsonl."""
    max_queue_bytes: Annotated[Size, Field(ge=1024 * 1024)] = 8 * 2**20
    """The most bytes in the queue of each stream, at least 1MiB. The last tenth is for records of level warning and
    above."""
    max_queue_records: Annotated[int, Field(ge=1)] = 65_536
    """The most records in the queue of each stream. Further records are dropped and counted."""
    flush_every: Duration = 0.25
    """The longest time that a record waits for its batch. Records of level warning and above do not wait."""
    rotate_size: Size | Literal["off"] = 100_000_000
    """The largest size of a file: a file is rotated (renamed) before it would exceed this."""
    rotate_every: Duration | None = None
    """The period of rotation, counted from 1970 in UTC ("1d": at midnight). Default: no rotation by time."""
    keep: Annotated[int, Field(ge=0)] = 10
    """The most rotated files of each stream."""
    keep_bytes: Size | None = None
    """The most bytes of all rotated files of a stream. Default: no bound."""
    keep_days: Annotated[float, Field(gt=0)] | None = None
    """The most days for which a rotated file is kept. Default: no bound."""
    compress: Literal["gzip", "zstd", "none"] = "gzip"
    """The compression of rotated files. zstd needs pip install 'umbel[zstd]'."""
    fsync: Literal["off", "1s", "audit"] = "audit"
    """When the disk must confirm records. off: never; 1s: every second, and for audit records; audit: only for audit
    records."""
    ring: bool = False
    """Whether records that wait to be written are also kept in shared memory, so that they are appended to the log
    later if the worker is killed."""
    redact: Names = ()
    """More names whose values are hidden, such as "x-session-*", beside the usual ones (authorization, *token*, …)."""


class Config(Section):
    """A whole configuration, with defaults merged, variables replaced and included files added."""

    include: Names = ()
    """Further files, as globs relative to this file. Their upstreams, routes, [auth.NAME] and [limits.NAME] are
    added."""
    upstreams: dict[UpstreamName, Upstream] = {}
    """The upstreams by name."""
    routes: Annotated[tuple[Route, ...], AS_TUPLE] = ()
    """The routes."""
    auth: dict[AuthName, Auth] = {}
    """The credentials that routes accept, by name."""
    limits: dict[LimitName, Limit] = {}
    """The limits of requests, by name."""
    compress: Compress | None = None
    """The compression of responses. Default: none."""
    cors: Cors | None = None
    """Cross-origin requests of browsers, for all routes. Default: no CORS."""
    headers: ResponseHeaders = Field(default_factory=ResponseHeaders)
    """Header fields of all answers."""
    server: Server = Field(default_factory=Server)
    """The server: limits of inbound requests, and times of a shutdown."""
    supervisor: Supervisor = Field(default_factory=Supervisor)
    """The master and its workers."""
    admin: Admin = Field(default_factory=Admin)
    """The admin side."""
    logs: Logs = Field(default_factory=Logs)
    """The logs."""
    traces: Traces = Field(default_factory=Traces)
    """The traces."""

    _locate: Callable[[KeyPath], str] | None = PrivateAttr(default=None)
    _hide: Callable[[str], str] = PrivateAttr(default=str)
    _placeholders: frozenset[KeyPath] = PrivateAttr(default=frozenset())
    """The keys with a placeholder for a wrong value. A configuration with placeholders is checked and never served."""

    def where(self, path: KeyPath) -> str:
        """Return ``file:line`` of a key; without a file its dotted path. The first call takes ms: it counts lines."""
        return self._locate(path) if self._locate is not None else ".".join(map(str, path))

    def hide(self, text: str) -> str:
        """Return a text with the values of variables replaced by ``${NAME}``, as ``LoadedConfig.hide``."""
        return self._hide(text)

    def is_placeholder(self, path: KeyPath) -> bool:
        """Whether the value at ``path``, or a table around it, was wrong and has been replaced by a placeholder."""
        return any(path[:end] in self._placeholders for end in range(1, len(path) + 1))

    def has_lost(self, path: KeyPath, names: Collection[str]) -> bool:
        """Whether the table at ``path`` may have had other keys than ``names``, which recovery has removed."""
        if not self._placeholders:
            return False
        return self.is_placeholder(path) or any(
            each[:-1] == path and (isinstance(each[-1], int) or each[-1] not in names) for each in self._placeholders
        )


DEFAULT_TABLES: Mapping[str, type[Section]] = {"upstream": Upstream, "route": Route}
"""The tables of ``[defaults]`` in the main file, each with the section that inherits its keys."""
