"""The explanation of a route as data: its calls with their dependencies, and each limit in force with its place.

Values of environment variables are replaced by the names of the variables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ...composition.plan.plan import CallPlan, MirrorPlan, Plan, SplitPlan
from ...composition.proxy.any_method import ANY_METHOD
from ...composition.static_response import StaticResponse
from ...composition.text.expression import ExpressionError
from ...config.loading.load import LoadedConfig
from ...config.schema.access.credential_names import CredentialNames, credentials_of
from ...config.schema.policies import Breaker, Ejection, Health, Hedge, Retry
from ...config.schema.section import Section
from ...config.schema.sections import Call, Config, Constant, KeyPath, Respond, Upstream
from ...config.schema.values.units import format_duration, format_rate, format_ratio, format_size
from ...core.http.forward_all import LEFT_OUT_IN_WORDS, STAR
from ...core.http.redirects import REDIRECTS_MAX
from ...core.model import Json
from ...gateway.browsers.compression import Compression
from ...gateway.request.request_fields import RequestFields
from .access import access_of, limit_text
from .proxied import ProxyExplained
from .splits import without_key


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit in force."""

    key: str
    value: str
    """The value as it is written in a file, or a few words about it."""
    place: str | None
    """The file and line of the value; None for a default."""


@dataclass(frozen=True, slots=True)
class CallExplained:
    """One call: its request, its dependencies, whether it is required, and its limits."""

    name: str
    place: str
    upstream: str
    method: str
    path: str
    needs: tuple[str, ...]
    """The dependencies: the calls whose values the call reads."""
    required: bool
    rules: tuple[str, ...]
    """The other settings that are not defaults, a few words each."""
    limits: tuple[Limit, ...]
    upstream_limits: tuple[Limit, ...]
    """The limits that the call shares with all calls to its upstream."""
    response: str = ""
    """The configured response in words; empty: the upstream gives the response."""


@dataclass(frozen=True, slots=True)
class RouteExplained:
    """One route and its calls, in the order of the configuration."""

    path: str
    place: str
    methods: tuple[str, ...]
    query: tuple[str, ...]
    combine: str
    """How the calls make the answer: ``all``, ``first`` or ``quorum of N``."""
    rules: tuple[str, ...]
    """The rules of the answer, a few words each."""
    limits: tuple[Limit, ...]
    calls: tuple[CallExplained, ...]
    answers: tuple[str, ...]
    """The names of the calls that make the answer: all, or the candidates of first and quorum."""
    upstreams: Mapping[str, tuple[Limit, ...]]
    """The limits of the upstreams of a proxy route, by name; empty: the route is none."""
    static: str = ""
    """The response of a route without a composition, in words; empty: the route has a composition."""
    location: str = ""
    """The Location that a redirect gives the request; empty: the route is no redirect, or a value is unknown."""
    proxy: ProxyExplained | None = None
    """How the request is passed on; None: the route is no proxy route."""
    access: tuple[str, ...] = ()
    """Who may call the route, and which requests it refuses; empty: nothing about it is configured."""
    chosen_because: tuple[str, ...] = ()
    """Why this route answers the request and not another one with the path."""


def explain_plan(
    loaded: LoadedConfig,
    index: int,
    plan: Plan,
    asked: Sequence[tuple[str, str]] = (),
    context: Mapping[str, Json] | None = None,
) -> RouteExplained:
    """Explain route ``index`` of the configuration, whose plan is ``plan``, for a request with the fields ``asked``.

    ``context`` is the evaluation context of the request; None: unknown.
    """
    route, server, explainer = plan.route, loaded.config.server, _Explainer(loaded)
    at: KeyPath = ("routes", index)
    return RouteExplained(
        route.path,
        loaded.config.where((*at, "path")),
        ("any method",) if plan.methods is ANY_METHOD else tuple(plan.methods),
        tuple(explainer.query(route.query_params)),
        f"quorum of {route.quorum}" if route.combine == "quorum" else route.combine,
        (*explainer.answer_rules(plan), *explainer.compression(plan, asked)),
        (
            *explainer.bounds(plan, at),
            explainer.limit(server, ("server",), "write_timeout", format_duration, key="server.write_timeout"),
            explainer.limit(loaded.config.logs.calls, ("logs", "calls"), "which", key="logs.calls.which"),
            *explainer.written(route, at, {"max_steps": str}),
            *explainer.written(server, ("server",), _SERVER, "server."),
            *explainer.written(loaded.config.traces, ("traces",), _TRACES, "traces."),
        ),
        tuple(explainer.call(call, (*at, "calls", call.name), route.deadline, context) for call in plan.calls),
        plan.candidates,
        dict(explainer.upstreams_of_proxy(plan)),
        explainer.static(plan),
        access=tuple(map(loaded.hide, access_of(loaded.config, plan))),
    )


_NO_UPSTREAM = Upstream(urls=("http://unknown",))
"""The limits of a call that has no upstream: the defaults."""
_SERVER: Mapping[str, Callable[[Any], str]] = {
    "allow_networks": ", ".join,
    "deny_networks": ", ".join,
    "limits": ", ".join,
    "hooks": str,
    "body_timeout": format_duration,
    "min_body_rate": format_rate,
    "max_uploads": str,
    "max_streams": str,
}
_TRACES: Mapping[str, Callable[[Any], str]] = {
    "otlp": str,
    "sample": format_ratio,
    "slow": format_duration,
    "force": lambda force: _toml_bool(force),
}


_OF_CALLS = frozenset({"deadline_header", "user_agent"})
"""Keys of an upstream that are about calls only."""


class _Explainer:
    """The explanations of the parts of one configuration."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self._config: Config = loaded.config
        self._hide = loaded.hide
        self._credentials = credentials_of(loaded.config.auth.values())

    def limit(
        self, section: Section, at: KeyPath, field: str, written: Callable[[Any], str] = str, *, key: str = ""
    ) -> Limit:
        given = field in section.model_fields_set
        return Limit(
            key or field,
            self._hide(written(getattr(section, field))),
            self._config.where((*at, field)) if given else None,
        )

    def written(
        self, section: Section, at: KeyPath, fields: Mapping[str, Callable[[Any], str]], prefix: str = ""
    ) -> Iterator[Limit]:
        """Yield the limits among ``fields`` that are not defaults."""
        for field, written in fields.items():
            if field in section.model_fields_set:
                yield self.limit(section, at, field, written, key=prefix + field)

    def call(
        self, plan: CallPlan, at: KeyPath, deadline: float, context: Mapping[str, Json] | None = None
    ) -> CallExplained:
        traffic = (*_split_rules(plan.split, context), *_mirror_rules(plan.mirror))
        if plan.split is not None and (chosen := _chosen(plan.split, context)) is not None:
            plan = chosen
        call = plan.config
        sent = call.respond is None and plan.upstream is not None
        return CallExplained(
            plan.name,
            self._config.where(at),
            call.upstream or "",
            plan.request_template.method,
            self._hide(call.path or ""),
            plan.needs,
            not call.optional,
            tuple(map(self._hide, (*traffic, *_call_rules(plan, self._credentials)))),
            tuple(self._call_limits(plan, at, deadline)),
            tuple(
                self._upstream_limits(plan.upstream, ("upstreams", call.upstream or ""))
                if sent and plan.upstream
                else ()
            ),
            response_text(call.respond) if call.respond is not None else "",
        )

    def bounds(self, plan: Plan, at: KeyPath) -> Iterator[Limit]:
        """Yield the limits of the time and the body of a request."""
        route, proxy = plan.route, plan.route.proxy
        if proxy is None:
            yield self.limit(route, at, "deadline", format_duration)
            yield self.limit(route, at, "max_body", format_size)
            yield self.limit(self._config.server, ("server",), "max_body", format_size, key="server.max_body")
            return
        for key in ("first_byte", "idle_timeout", "max_lifetime"):
            yield self.limit(proxy, (*at, "proxy"), key, _or_off(format_duration))
        yield self.limit(proxy, (*at, "proxy"), "max_body", _or_off(format_size))

    def upstreams_of_proxy(self, plan: Plan) -> Iterator[tuple[str, tuple[Limit, ...]]]:
        """Yield the upstreams of a proxy route with their limits."""
        for name in plan.route.proxy.destinations if plan.route.proxy is not None else ():
            limits = self._upstream_limits(self._config.upstreams[name], ("upstreams", name))
            yield name, tuple(limit for limit in limits if limit.key not in _OF_CALLS)

    def query(self, params: dict[str, Any]) -> Iterator[str]:
        for name, param in params.items():
            default = f", default {_shown(param.default)}" if param.default is not None else ""
            split = f" split at {_shown(param.split)}" if param.split is not None else ""
            yield f"{name}: {param.type}{split}{', required' if param.required else self._hide(default)}"

    def static(self, plan: Plan) -> str:
        route = plan.route
        if route.redirect is not None:
            kept = ", with the client's query" if route.redirect.query == "keep" else ""
            return self._hide(f"status {route.redirect.status}, to {route.redirect.to}{kept}")
        return self._hide(response_text(route.respond)) if route.respond is not None else ""

    def answer_rules(self, plan: Plan) -> Iterator[str]:
        answer = plan.route.answer
        if answer.shape is not None:
            yield f"shape {self._hide(answer.shape)}"
        if answer.status != 200:
            yield f"status {answer.status}"
        if answer.status_from is not None:
            yield f"status of {answer.status_from}, if it is 201, 202 or 204, with its Location"
        if plan.route.stream:
            yield "streamed"
        if names := vary_of(self._config, plan):
            yield f"varies with {', '.join(names).lower()}"
        yield from self._caching(plan)

    def compression(self, plan: Plan, asked: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Yield how the answers of a route are compressed, and the answer to a request with the fields ``asked``."""
        compress = self._config.compress
        if compress is None:
            return
        if not plan.route.compress or plan.route.stream or plan.proxy is not None:
            yield "never compressed"
            return
        compression = Compression(compress)
        fields = RequestFields([(name.lower().encode(), value.encode()) for name, value in asked])
        codings, min_size = ", ".join(compression.codings), format_size(compress.min)
        yield f"compressed by {codings} from {min_size} on, as the client accepts"
        accepted = compression.accepted(fields)
        if fields.via and not compress.proxied:
            yield "not compressed for this request, because it has Via and proxied is false"
        elif accepted.codings:
            least = "" if accepted.identity else ", whatever its size, because the client refuses an uncoded answer"
            yield f"compressed by {accepted.codings[0]} for this request{least}"
        elif fields.get("accept-encoding") is not None:
            yield "not compressed for this request: Accept-Encoding names none of the codings, or prefers identity"

    def _caching(self, plan: Plan) -> Iterator[str]:
        configured = plan.route.answer.cache_control
        if plan.proxy is not None:
            return
        if plan.static is not None:
            if configured != "parts" or plan.private:
                yield f"cache_control {self._hide(configured) if configured != 'parts' else 'private'}"
        elif configured != "parts":
            yield f"cache_control {self._hide(configured)}; private if it sets a cookie or a part is private"
        elif plan.private:
            yield "cache_control private: no shared cache keeps it"
        else:
            yield "cache_control private if the request has a cookie or authorization, else as the parts say"

    def _call_limits(self, plan: CallPlan, at: KeyPath, deadline: float) -> Iterator[Limit]:
        call, upstream = plan.config, plan.upstream or _NO_UPSTREAM
        above: KeyPath = ("upstreams", call.upstream or "")
        timeout = plan.rules.timeout
        if timeout is None:
            yield Limit("timeout", "what the deadline leaves", None)
        else:
            limit = self._nearest(call, at, upstream, above, "timeout", format_duration)
            cut = f", cut by the deadline of {format_duration(deadline)}" if timeout > deadline else ""
            yield Limit(limit.key, limit.value + cut, limit.place)
        if call.max_body is not None or upstream.max_body is not None:
            yield self._nearest(call, at, upstream, above, "max_body", format_size)
        else:
            yield Limit("max_body", format_size(plan.rules.max_body or 0), None)
        if call.respond is None:
            yield from self._repetition(call, at, upstream, above)
        if call.each is not None:
            yield self.limit(call, at, "limit")
            yield self.limit(call, at, "max_items")

    def _repetition(self, call: Call, at: KeyPath, upstream: Upstream, above: KeyPath) -> Iterator[Limit]:
        if call.retry is not None or upstream.retry is not None:
            yield self._nearest(call, at, upstream, above, "retry", _retry_text)
        if call.hedge is not None or upstream.hedge is not None:
            yield self._nearest(call, at, upstream, above, "hedge", _hedge_text)
        if call.coalesce or (call.coalesce is None and upstream.coalesce):
            yield self._nearest(call, at, upstream, above, "coalesce", lambda on: "with identical calls in flight")

    def _nearest(
        self, call: Call, at: KeyPath, upstream: Upstream, above: KeyPath, field: str, written: Callable[[Any], str]
    ) -> Limit:
        if getattr(call, field) is not None:
            return self.limit(call, at, field, written)
        return self.limit(upstream, above, field, written)

    def _upstream_limits(self, upstream: Upstream, at: KeyPath) -> Iterator[Limit]:
        yield self.limit(upstream, at, "max_concurrency")
        if upstream.max_queue is None:
            yield self.limit(self._config.server, ("server",), "max_in_flight", key="max_queue")
        else:
            yield self.limit(upstream, at, "max_queue")
        for name in upstream.limits:
            text = f"{limit_text(self._config.limits[name])}; more calls wait"
            yield Limit(f"limits.{name}", self._hide(text), self._config.where((*at, "limits")))
        if upstream.max_streams != Upstream.model_fields["max_streams"].default:
            yield self.limit(upstream, at, "max_streams")
        yield self.limit(upstream, at, "connect_timeout", format_duration)
        yield self.limit(upstream, at, "keepalive_expiry", format_duration)
        yield self.limit(upstream, at, "max_head", format_size)
        yield self.limit(upstream, at, "max_fields")
        yield self.limit(upstream, at, "deadline_header", lambda name: name or "none")
        yield self.limit(upstream, at, "forwarded", _toml_bool)
        if upstream.host is not None:
            yield self.limit(upstream, at, "host")
        if upstream.user_agent is not None:
            yield self.limit(upstream, at, "user_agent")
        yield self.limit(upstream, at, "public_only", _toml_bool)
        if upstream.breaker is not None:
            yield self.limit(upstream, at, "breaker", _breaker_text)
        if len(upstream.urls) > 1 or upstream.urls[0] != upstream.replicas[0].url or upstream.balance != "p2c":
            yield self.limit(upstream, at, "balance")
        if len(upstream.urls) > 1 and upstream.ejection:
            yield self.limit(upstream, at, "ejection", _ejection_text)
        if upstream.health is not None:
            yield self.limit(upstream, at, "health", _health_text)
        if upstream.retry is not None or upstream.hedge is not None:
            yield self.limit(upstream, at, "retry_budget", format_ratio)


def _call_rules(plan: CallPlan, credentials: CredentialNames) -> Iterator[str]:
    call = plan.config
    if call.each is not None:
        yield f"each {call.each}, as a {call.as_}"
    if call.when is not None:
        yield f"when {call.when}"
    if STAR in call.forward_headers:
        yield f"forwards all header fields of the client but {LEFT_OUT_IN_WORDS}"
        if credentials.fields:
            yield f"forwards no API key of this gateway ({', '.join(sorted(credentials.fields))})"
    if STAR in call.forward_query:
        yield "forwards the client's query unchanged"
    if STAR in call.forward_cookies:
        but = f" but {', '.join(sorted(credentials.cookies))}" if credentials.cookies else ""
        yield f"forwards all cookies of the client{but}"
    if call.has_default:
        yield f"default {_shown(call.default)}"
    elif call.optional:
        yield "null if it fails"
    for key, table in (("with", call.with_), ("params", call.params), ("json", call.json_), ("form", call.form)):
        for name, source in table.items() if isinstance(table, dict) else ():
            if isinstance(source, Constant):
                yield f"{key} {name} is always {_shown(source.value)}"
    if "item_default" in call.model_fields_set:
        yield f"item_default {_shown(call.item_default)}"
    if call.decode != "json":
        yield f"decode {call.decode}"
    for key, statuses in (("ok", call.ok), ("null_on", call.null_on)):
        if statuses:
            yield f"{key} {_ranges(statuses)}"
    redirects = call.redirects or (plan.upstream.redirects if plan.upstream is not None else "fail")
    if redirects == "follow":
        yield f"follows at most {REDIRECTS_MAX} redirects to the same origin"
    if plan.conditions:
        yield f"forwards {', '.join(plan.conditions)}; a 304 is the answer"
    if not call.optional:
        passed = f"status {_ranges(plan.rules.pass_status)}" if plan.rules.pass_status else "no status"
        yield f"passes on {passed}{' with the body' if call.pass_body else ''}"


def vary_of(config: Config, plan: Plan) -> tuple[str, ...]:
    """The names in the field Vary of the answers of a route, in their order.

    They are those of ``match``, ``host``, templates and expressions, of CORS and of compression. Upstreams and handlers
    may add names.
    """
    names = [name.title() for name in (plan.vary if plan.proxy is None else plan.proxy.vary)]
    media = b"application/json"
    if isinstance(plan.static, StaticResponse):
        media = dict(plan.static.fields).get(b"content-type", b"")
    elif plan.static is None and plan.proxy is None:
        names.insert(0, "Accept")
    else:
        media = b""
    if config.cors is not None or plan.route.cors:
        names.append("Origin")
    compress = config.compress if plan.route.compress and not plan.route.stream else None
    if compress is not None and Compression(compress).has_type(media):
        names.append("Accept-Encoding")
    return tuple(dict.fromkeys(names))


def _ranges(statuses: Iterable[int]) -> str:
    """Statuses in ascending order, of which three or more adjacent ones are a range: ``200, 204, 300-303``."""
    runs: list[list[int]] = []
    for status in sorted(set(statuses)):
        if runs and status == runs[-1][-1] + 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run) for run in runs]
    return ", ".join(chain.from_iterable(parts))


def _key_of(split: SplitPlan, context: Mapping[str, Json] | None) -> str | None:
    """The key of a request for a split; None: it has none, or it is unknown."""
    with suppress(ExpressionError):
        return None if context is None else split.key_of(context)
    return None


def _chosen(split: SplitPlan, context: Mapping[str, Json] | None) -> CallPlan | None:
    """The call for a request; None: chance decides, or a part of the request that decides is unknown."""
    key = _key_of(split, context)
    return None if key is None else split.variants[split.split.choose(key, lambda: 0.0)]


def _split_rules(split: SplitPlan | None, context: Mapping[str, Json] | None) -> Iterator[str]:
    """Yield the shares of a split, and the upstream that it chooses for a request."""
    if split is None:
        return
    shares = split.split.shares
    rest = {split.split.default: max(0.0, 1 - sum(shares.values()))}
    each = ", ".join(f"{name} {format_ratio(round(share, 9))}" for name, share in (shares | rest).items())
    if split.key is None:
        yield f"split {each}, at random"
    elif (chosen := _chosen(split, context)) is not None:
        yield f"split {each}, by {split.key.text}: this request goes to {chosen.rules.upstream}"
    else:
        yield f"split {each}, by {split.key.text}: {without_key(split.key)}"


def _mirror_rules(mirror: MirrorPlan | None) -> Iterator[str]:
    if mirror is not None:
        copies = f"copies {format_ratio(mirror.share)} of its requests to {mirror.call.rules.upstream}"
        yield f"{copies} after the answer, for at most {format_duration(mirror.timeout)} each"


def response_text(respond: Respond) -> str:
    """The response of a ``respond`` table in words, such as ``status 200, json, after 2s``."""
    body = "json" if respond.json_ is not None else "text" if respond.text is not None else "no body"
    body = f"file {respond.file}" if respond.file is not None else body
    fields = f", with {', '.join(respond.headers)}" if respond.headers else ""
    return f"status {respond.status}, {body}{fields}" + (
        f", after {format_duration(respond.delay)}" if respond.delay else ""
    )


def _or_off(written: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: value if value == "off" else written(value)


def _toml_bool(value: bool) -> str:
    """Return a truth value as TOML writes it."""
    return "true" if value else "false"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _retry_text(retry: Retry) -> str:
    """Return text such as ``2 attempts, back-off 25ms to 250ms``."""
    on = f" on {', '.join(map(str, retry.on))}" if retry.on is not None else ""
    waits = f"back-off {format_duration(retry.backoff)} to {format_duration(retry.max_backoff)}"
    return f"{retry.attempts} attempts{on}, {waits}"


def _hedge_text(hedge: Hedge) -> str:
    """Return text such as ``after p95, 1 more``."""
    after = hedge.after if isinstance(hedge.after, str) else format_duration(hedge.after)
    return f"after {after}, {hedge.max} more"


def _breaker_text(breaker: Breaker) -> str:
    """Return text such as ``opens for 5s at 50% of at least 20 in 10s``."""
    opens = f"opens for {format_duration(breaker.open_for)} at {format_ratio(breaker.failure_ratio)}"
    return f"{opens} of at least {breaker.min_requests} in {format_duration(breaker.window)}"


def _ejection_text(ejection: bool | Ejection) -> str:
    """Return text such as ``after 5 failures for 30s to 5m, at most 50% out``."""
    rules = ejection if isinstance(ejection, Ejection) else Ejection()
    times = f"{format_duration(rules.base)} to {format_duration(rules.max)}"
    return f"after {rules.failures} failures for {times}, at most {format_ratio(rules.share)} out"


def _health_text(health: Health) -> str:
    """Return text such as ``GET /healthz every 5s, back after 2, out after 3``."""
    counts = f"back after {health.healthy}, out after {health.unhealthy}"
    return f"GET {health.path} every {format_duration(health.every)}, {counts}"
