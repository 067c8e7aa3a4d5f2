"""The sections of umbel.toml with their keys, as frozen pydantic models, each behind the constraints between its keys.

The docstrings of classes and keys are the texts of docs/config.md and of the JSON Schema. What needs a plan is checked
in ``composition/plan/compiler.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, model_validator

from ...core.http.forward_all import STAR, star_leaves_out
from ...core.product import PRODUCT
from .constraints import ConstraintViolation, enforce
from .policies import Breaker, Ejection, Health, Hedge, Retry, WeightedUrl
from .section import AS_TUPLE, Section
from .server import Server as Server
from .supervisor import Supervisor as Supervisor
from .types import (
    AS_SOURCE,
    BaseUrl,
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
    JsonScalar,
    JsonValue,
    Method,
    Name,
    PassedStatus,
    RoutePath,
    Status,
    UpstreamName,
    UserAgent,
)
from .units import Duration, Ratio, Size

Names = Annotated[tuple[str, ...], AS_TUPLE]
Statuses = Annotated[tuple[Status, ...], AS_TUPLE]
KeyPath = tuple[str | int, ...]


def _tls_constraints(tls: Tls) -> Iterator[ConstraintViolation]:
    """Yield a violation unless a client certificate and its key come together."""
    if (tls.cert is None) != (tls.key is None):
        given, other = ("key", "cert") if tls.cert is None else ("cert", "key")
        yield ConstraintViolation(f"{given} needs {other} beside it: give both or neither", (given, other))


class Tls(Section):
    """TLS towards an upstream whose URL is https."""

    ca: str | None = None
    """A file of CA certificates (PEM) to trust instead of the system's."""
    cert: str | None = None
    """A client certificate (PEM) to show."""
    key: str | None = None
    """The client certificate's private key (PEM)."""
    server_name: str | None = None
    """The name to ask for and to verify, if it is not the URL's host."""

    _checked = model_validator(mode="after")(enforce(_tls_constraints))


class Constant(Section):
    """A constant in the place of an expression: { value = 1 } gives the number 1."""

    value: JsonValue
    """The value, as it is; a text in it is no expression."""


Source = Annotated[str | Constant, AS_SOURCE]
"""What gives a value: a JMESPath expression, or a constant."""


def _upstream_constraints(upstream: Upstream) -> Iterator[ConstraintViolation]:
    """Yield the violations of an upstream: weights need the balance that uses them; a replica stands once."""
    weighted = any("weight" in replica.model_fields_set for replica in upstream.replicas)
    if weighted and upstream.balance != "weighted":
        yield ConstraintViolation('weights serve balance = "weighted" only', ("urls", "balance"))
    names = [replica.url for replica in upstream.replicas]
    if len(set(names)) < len(names):
        yield ConstraintViolation("one replica stands twice; give it a weight instead", ("urls",))


class Upstream(Section):
    """A named HTTP service: one or more base URLs (replicas) with its limits."""

    urls: Annotated[tuple[BaseUrl | WeightedUrl, ...], Field(strict=False, min_length=1)]
    """The replicas: http://, https:// or unix: URLs without credentials, or {url, weight} tables. A dns+http:// or
    dns+https:// URL stands for one replica per address of its name in DNS (hosts files are not read)."""
    timeout: Duration | None = None
    """The limit of one whole call, queueing included. Default: what the route's deadline leaves."""
    connect_timeout: Duration = 1.0
    """The limit of connecting: name, address and TLS handshake together."""
    max_concurrency: Concurrency = 100
    """Calls in flight at once; further ones wait in the upstream's one queue. "auto" follows the measured latency."""
    max_queue: Annotated[int, Field(ge=0)] | None = None
    """Requests whose calls may wait; those of one more fail at once with kind overflow. The calls of a request share
    its room. Default: max_in_flight of [server], so that no call is refused while the upstream works; 40 % of that
    while it completes no call for 1 s."""
    keepalive_expiry: Duration = 4.0
    """How long an idle connection is kept for reuse."""
    max_body: Size | None = None
    """The largest response body, after decompression. As JSON it may hold a value for each 5 bytes of this, at least
    200000. Default: 1MB for json, 10MB for text."""
    max_head: Size = 64 * 1024
    """The largest response head."""
    max_fields: Annotated[int, Field(ge=1)] = 100
    """The most header fields of a response."""
    headers: Headers = {}
    """Headers of every call, as templates."""
    params: dict[str, Source] = {}
    """Query parameters of every call, as JMESPath expressions or constants."""
    tls: Tls = Tls()
    """TLS settings for https URLs."""
    public_only: bool = False
    """Refuse private and loopback addresses (link-local and multicast ones are always refused)."""
    retry: Retry | None = None
    """Further attempts of calls that failed. Off unless the table stands."""
    retry_budget: Ratio = 0.2
    """The most retries and hedges, as a share of the calls in flight; never under 3."""
    hedge: Hedge | None = None
    """A second attempt beside a slow first one. Off unless the table stands."""
    breaker: Breaker | None = None
    """Fail at once while most calls fail. Off unless the table stands."""
    ejection: bool | Ejection = True
    """Leave out a replica that fails in a row. With one replica it does nothing."""
    balance: Literal["p2c", "round_robin", "weighted"] = "p2c"
    """Which replica an attempt takes: the less busy of two at random, each in turn, or by weight."""
    coalesce: bool = False
    """Make one upstream call of identical safe calls that are in flight together."""
    health: Health | None = None
    """Check the replicas regularly. Off unless the table stands."""
    deadline_header: HeaderName | Literal[False] = "x-envoy-expected-rq-timeout-ms"
    """The header that carries the remaining budget in milliseconds to the upstream; false for none."""
    forwarded: bool = True
    """Whether X-Forwarded-For, -Proto and -Host are sent."""
    user_agent: UserAgent | None = None
    """The User-Agent of calls and health checks, because many APIs refuse requests without one; "off" for none. One in
    headers, or the client's in forward_headers, goes before it. Default: umbel/ and the version of Umbel."""

    _checked = model_validator(mode="after")(enforce(_upstream_constraints))

    @property
    def product(self) -> bytes:
        """The User-Agent of calls that name none; empty where none is sent."""
        return b"" if self.user_agent == "off" else (self.user_agent or PRODUCT).encode("ascii")

    @property
    def replicas(self) -> tuple[WeightedUrl, ...]:
        """The replicas, whichever way they were written."""
        return tuple(each if isinstance(each, WeightedUrl) else WeightedUrl(url=each) for each in self.urls)


def _query_constraints(param: QueryParam) -> Iterator[ConstraintViolation]:
    """Yield the violations of a query parameter: a default has its type, and needs a parameter that may be missing."""
    default = param.default
    if default is None:
        return
    if param.required:
        yield ConstraintViolation("a required parameter has no default", ("default", "required"))
    fits = {
        "str": isinstance(default, str),
        "bool": isinstance(default, bool),
        "int": isinstance(default, int) and not isinstance(default, bool),
        "float": isinstance(default, int | float) and not isinstance(default, bool),
    }
    if not fits[param.type]:
        yield ConstraintViolation(
            f'the default of a parameter of type "{param.type}" is of that type too', ("default", "type")
        )


class QueryParam(Section):
    """A query parameter of the client's that a route knows."""

    type: Literal["str", "int", "float", "bool"] = "str"
    """What its text must parse as; what does not is answered with 400. An int has 64 bits, as in most databases."""
    default: JsonScalar = None
    """The value where the client sends none; without one it is null."""
    required: bool = False
    """Answer 400 where the client sends none."""

    _checked = model_validator(mode="after")(enforce(_query_constraints))


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
        yield ConstraintViolation(f"a {call.method} call has no body; give it another method", ("method", bodies[0]))
    if call.each is None:
        for field, key in (
            ("as_", "as"),
            ("limit", "limit"),
            ("max_items", "max_items"),
            ("item_default", "item_default"),
        ):
            if field in given:
                yield ConstraintViolation(
                    f"{key} is about the items of an each, and this call has no each", (key, "each")
                )
    default = "default" if "default" in given else "default_null"
    if call.default_null and default == "default":
        yield ConstraintViolation("default and default_null exclude each other", ("default_null", "default"))
    if call.has_default and not call.optional and call.when is None:
        yield ConstraintViolation(
            "a default serves only a call with optional = true or with when", (default, "optional", "when")
        )
    if "item_default" in given and call.each is not None and not call.optional:
        yield ConstraintViolation(
            "item_default serves only a call with optional = true: a required each fails with its item",
            ("item_default", "optional"),
        )
    for key, names in (("forward_query", call.forward_query), ("forward_cookies", call.forward_cookies)):
        if STAR in names and len(names) > 1:
            yield ConstraintViolation(f'"*" in {key} stands for all of them; no other name belongs beside it', (key,))
    if STAR in call.forward_headers:
        sent = [name for name in call.forward_headers if name != STAR and not star_leaves_out(name)]
        if sent:
            yield ConstraintViolation(
                f'"*" in forward_headers sends "{sent[0]}" already; beside it stand only fields that it leaves out,'
                " such as authorization",
                ("forward_headers",),
            )
    if both := set(call.ok) & set(call.null_on):
        yield ConstraintViolation(f"{min(both)} stands in ok and in null_on; it can mean one thing", ("null_on", "ok"))


class Call(Section):
    """One logical upstream request of a route."""

    upstream: UpstreamName
    """The upstream to ask."""
    path: str
    """The target as an RFC 6570 template of the forms {name}, {?a,b} and {&a,b}."""
    method: Method | None = None
    """The method of the request. Default: GET; POST with json, form or forward_body."""
    json_: Annotated[str | dict[str, Source] | None, Field(alias="json")] = None
    """The JSON body: a JMESPath expression, or a table of expressions and constants."""
    form: str | dict[str, Source] | None = None
    """The form body: a JMESPath expression that gives an object, or a table of expressions and constants."""
    with_: Annotated[dict[Name, Source], Field(alias="with")] = {}
    """Names for the templates of this call, each bound to a JMESPath expression or a constant."""
    params: dict[str, Source] = {}
    """Query parameters, each a JMESPath expression or a constant; for names that a template cannot bear."""
    headers: Headers = {}
    """Headers as templates; they add to the upstream's."""
    forward_headers: Annotated[tuple[ForwardedHeader, ...], AS_TUPLE] = ()
    """Headers of the client that go along; "*": all but those that "What goes along" names. Default: none, for an
    upstream should learn no more of a client than it needs."""
    forward_query: Annotated[tuple[ForwardedParam, ...], AS_TUPLE] = ()
    """Query parameters of the client that go along byte for byte, in the order of the query; "*": all of it."""
    forward_cookies: Annotated[tuple[ForwardedCookie, ...], AS_TUPLE] = ()
    """Cookies of the client that go along; "*": all."""
    forward_body: bool = False
    """Send the client's body on as it came, with its Content-Type and Content-Encoding."""
    timeout: Duration | None = None
    """The limit of this call (of each item, with each), instead of the upstream's."""
    max_body: Size | None = None
    """The largest response body of this call, instead of the upstream's."""
    optional: bool = False
    """Whether the answer may go out without it."""
    default: JsonValue = None
    """The value where an optional call fails or a call is skipped; its dependants then run."""
    default_null: bool = False
    """A default of null (TOML has no null to write as default)."""
    when: ExpressionText | None = None
    """A JMESPath expression; where it is false the call is skipped and the answer stays complete."""
    each: ExpressionText | None = None
    """A JMESPath expression that gives a list: one call per distinct value, bound to {item}."""
    as_: Annotated[Literal["list", "map"], Field(alias="as")] = "list"
    """The value of an each: a list with the places kept, or an object {item: result}, whose keys are texts: the
    number 1 and the text "1" are one key, and the last of them stands."""
    limit: Annotated[int, Field(ge=1)] = 16
    """Items of an each in flight at once."""
    max_items: Annotated[int, Field(ge=1)] = 100
    """Places of an each; a longer list fails the call with kind too-many: 400 if it is the client's, else 502."""
    item_default: JsonValue = None
    """What stands at the place of a failed item of an optional each."""
    decode: Literal["json", "text", "none"] = "json"
    """How the body becomes a value; none drains it and gives null."""
    ok: Statuses = ()
    """The statuses of success. Default: every 2xx."""
    null_on: Statuses = ()
    """Statuses that mean null instead of a failure."""
    pass_status: Annotated[tuple[PassedStatus, ...] | None, AS_TUPLE] = None
    """3xx, 4xx and 5xx statuses passed on to the client when a required call fails with them, with the fields that
    belong to them. Default: 400, 403, 404, 409, 410, 412, 422, 429, and 401 if it carries a credential of the
    client's."""
    retry: Retry | None = None
    """Further attempts of this call, instead of the upstream's."""
    hedge: Hedge | None = None
    """A second attempt beside a slow first one, instead of the upstream's."""
    coalesce: bool | None = None
    """Whether this call may be one with identical others, instead of the upstream's."""
    pass_body: bool = False
    """Pass the upstream's own error body on with such a status, instead of a problem document."""

    _checked = model_validator(mode="after")(enforce(_call_constraints))

    @property
    def has_default(self) -> bool:
        """Whether a default was given, null included."""
        return self.default_null or "default" in self.model_fields_set


class Answer(Section):
    """How the outcomes become one answer."""

    shape: ExpressionText | None = None
    """A JMESPath expression over the context. Default: an object of call and value."""
    status: Annotated[int, Field(ge=200, le=299)] = 200
    """The status of a composed answer; 204 sends no body."""
    headers: Headers = {}
    """Headers of the answer, as templates."""
    forward_headers: dict[str, Annotated[tuple[HeaderName, ...], AS_TUPLE]] = {}
    """Response headers passed on, by call."""
    forward_cookies: dict[str, Annotated[tuple[CookieName, ...], AS_TUPLE]] = {}
    """Cookies set by an upstream that are passed on, by call."""
    cache_control: HeaderText = "parts"
    """The Cache-Control of a complete answer; parts: the most restrictive of the calls' own, and private where the
    request bore a cookie or authorization. An answer that sets a cookie, or of which a call's is private, is private
    whatever stands here; with a no-store it is no-store."""
    etag: bool = True
    """Whether a complete answer bears a strong ETag and If-None-Match is answered with 304."""


def _route_constraints(route: Route) -> Iterator[ConstraintViolation]:
    """Yield the violations of the constraints between the keys of one route."""
    if route.combine == "quorum" and route.quorum is None:
        yield ConstraintViolation('combine = "quorum" needs quorum = k, the number of successes', ("combine", "quorum"))
    for name in route.query_params:
        if STAR in name:
            yield ConstraintViolation(
                f'"{name}" names no parameter: a route declares each that it reads, and forward_query = ["*"] of a call'
                " sends on all of them",
                ("query",),
            )
    if route.combine != "quorum" and route.quorum is not None:
        yield ConstraintViolation('quorum serves only combine = "quorum"', ("quorum", "combine"))


class Route(Section):
    """An inbound method and path bound to a composition."""

    path: RoutePath
    """A werkzeug rule, such as /dashboard/<user_id> or /items/<int:id>."""
    methods: Annotated[tuple[Method, ...] | None, Field(strict=False, min_length=1)] = None
    """The methods that it answers, HEAD beside GET. Default: GET, or POST if the plan uses the body."""
    query: dict[str, QueryParam] | Names = {}
    """The client's query parameters that this route knows: a table, or a list of names for plain text ones. Others are
    ignored, whatever they hold."""
    auth: Literal["none"] | None = None
    """Who may call it; none: anybody, on purpose. Default: nothing is said, see hooks of the server."""
    deadline: Duration = 5.0
    """When the answer is due; it goes out with what is there."""
    combine: Literal["all", "first", "quorum"] = "all"
    """Which calls make the answer: all of them, the first success, or the first quorum successes."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """How many successes combine = "quorum" needs."""
    stream: bool = False
    """Stream an outcome per line as it lands, NDJSON unless the client asks for SSE."""
    max_body: Size = 10**6
    """The largest request body. Its fields as a form, and its values as JSON, may be as many as fit: one field for each
    1000 bytes of this, at least 1000; one value for each 5 bytes, at least 200000."""
    max_steps: Annotated[int, Field(ge=1)] = 200_000
    """Steps that one evaluation of an expression may take; 2,000 of them hold the worker for about a millisecond."""
    body: Literal["json", "form", "bytes"] = "json"
    """What the request body must be: JSON, a form, or any bytes to forward, in whatever content coding they have."""
    expose: Literal["full", "completed", "none"] = "full"
    """Which diagnostic headers clients get: all, only Umbel-Completed, or none."""
    krakend_compat: bool = False
    """Also send X-KrakenD-Completed; with every error of the route, 404 and 405 included, it is false, as KrakenD says
    it. Default: false, for Umbel-Completed says the same."""
    calls: Annotated[dict[CallName, Call], Field(min_length=1)]
    """The calls by name; their order is the order of the answer."""
    answer: Answer = Answer()
    """How the outcomes become one answer."""

    _checked = model_validator(mode="after")(enforce(_route_constraints))

    @property
    def query_params(self) -> dict[str, QueryParam]:
        """The declared query parameters, whichever way they were written."""
        if isinstance(self.query, dict):
            return self.query
        return {name: QueryParam() for name in self.query}


class LogStream(Section):
    """One stream of records."""

    file: FileName | None = None
    """The file's name, inside dir; "-" is stdout. Default: access.jsonl, calls.jsonl or app.jsonl."""
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    """Records below it are not made."""
    sample: Ratio = 1.0
    """The share of the records below warning that is kept, the same requests in every stream; slow ones always are."""
    slow: Duration = 1.0
    """What takes this long or longer is never sampled away."""
    overflow: Literal["drop_new", "drop_oldest"] = "drop_new"
    """What gives way when the queue is full, below warning. Either way it is counted and written into the log."""


class CallsLogStream(LogStream):
    """The stream of records of calls."""

    which: Literal["notable", "all", "off"] = "notable"
    """Which calls have a line of their own: those that failed, were repeated or hedged, or took slow or longer; all of
    them; or none. The line of the request names each call in every case."""


class Logs(Section):
    """Where records go: JSON lines."""

    dir: str = "logs"
    """The directory, made if it is not there; relative to the configuration file."""
    access: LogStream = LogStream()
    """One line per request. Default: the file access.jsonl."""
    calls: CallsLogStream = CallsLogStream()
    """One line per call that says something. Default: the file calls.jsonl."""
    app: LogStream = LogStream()
    """Everything else. Default: the file app.jsonl."""
    max_queue_bytes: Annotated[Size, Field(ge=1024 * 1024)] = 8 * 2**20
    """Bytes of each stream waiting to be written, at least 1MiB; the last tenth is kept for warning and above."""
    max_queue_records: Annotated[int, Field(ge=1)] = 65_536
    """Records of each stream waiting to be written; what finds no room is dropped and counted."""
    flush_every: Duration = 0.25
    """How long a record may wait for its batch. Warnings and errors do not wait."""
    rotate_size: Size | Literal["off"] = 100_000_000
    """A file is renamed before it would grow over this."""
    rotate_every: Duration | None = None
    """A file is renamed when a new period begins, counted from 1970 in UTC ("1d": at midnight). Default: never."""
    keep: Annotated[int, Field(ge=0)] = 10
    """Renamed files that stay, of each stream."""
    keep_bytes: Size | None = None
    """Bytes of renamed files that stay, of each stream. Default: no bound."""
    keep_days: Annotated[float, Field(gt=0)] | None = None
    """Days for which a renamed file stays. Default: no bound."""
    compress: Literal["gzip", "zstd", "none"] = "gzip"
    """What becomes of a renamed file. zstd needs pip install 'umbel[zstd]'."""
    fsync: Literal["off", "1s", "audit"] = "audit"
    """When the disk must confirm: never, each second, or only for records that ask for it."""
    ring: bool = False
    """Whether records outlive a killed worker, in shared memory."""
    redact: Names = ()
    """More names whose values are hidden, such as "x-session-*", beside the usual ones (authorization, *token*, …)."""


class Config(Section):
    """A whole configuration, defaults merged, variables replaced, includes read."""

    include: Names = ()
    """More files, as globs relative to this one; their upstreams and routes are added."""
    upstreams: dict[UpstreamName, Upstream] = {}
    """The upstreams by name."""
    routes: Annotated[tuple[Route, ...], AS_TUPLE] = ()
    """The routes."""
    server: Server = Server()
    """The inbound side."""
    supervisor: Supervisor = Supervisor()
    """The master and its workers."""
    logs: Logs = Logs()
    """The records."""

    _locate: Callable[[KeyPath], str] | None = PrivateAttr(default=None)
    _placeholders: frozenset[KeyPath] = PrivateAttr(default=frozenset())
    """The keys that hold a placeholder for a wrong value. Only in a configuration that is checked and never served."""

    def where(self, path: KeyPath) -> str:
        """Return ``file:line`` of the key at ``path`` if this came from a file, else the dotted path.

        The first call of a configuration that came from a file computes its line numbers (milliseconds).
        """
        return self._locate(path) if self._locate is not None else ".".join(map(str, path))

    def is_placeholder(self, path: KeyPath) -> bool:
        """Whether what stands at ``path``, or a table around it, is a placeholder for something wrong."""
        return any(path[:end] in self._placeholders for end in range(1, len(path) + 1))

    def has_lost(self, path: KeyPath, names: Collection[str]) -> bool:
        """Whether the table at ``path``, which has these names, may have had others that were removed as wrong."""
        if not self._placeholders:
            return False
        return self.is_placeholder(path) or any(
            each[:-1] == path and (isinstance(each[-1], int) or each[-1] not in names) for each in self._placeholders
        )


DEFAULT_TABLES: Mapping[str, type[Section]] = {"upstream": Upstream, "route": Route}
"""The tables that ``[defaults]`` of the main file may hold, each with the section that inherits its keys."""
