"""Plan compiler: compiles a route of the configuration to a ``Plan``, and reports every mistake in the route.

Theory
------
**Problem.** A route names calls, and the calls name each other: ``path = "/orders/{user.id}"`` in a call means "start
this call when the call ``user`` has a value". The configuration has no key for dependencies. The compiler finds them in
the templates and expressions, so they cannot contradict what a request reads. It also checks whatever can be checked
without a request, because a mistake in the configuration must not fail a request. One run reports the mistakes of all
parts; of several cycles it reports the first.

**Names.** A template or an expression reads the *context*: ``path``, ``query``, ``headers``, ``cookies``, ``body``,
``client``, ``item`` (in a call with ``each``), and one entry per call. ``RouteNames`` holds the names that a route
declares. A ``Scope`` holds the names that one call may read; the answer has a scope of its own.

**How dependencies are found.** ``_call`` goes through the keys of one call in this order:

1. ``when``, then ``each``. ``each`` defines ``item`` for the keys after it. Then ``split_key``.
2. ``with``. Its keys become *bound names*, which only the templates of this call can read.
3. ``path``, the ``headers`` and ``params`` of the upstream and of the call, and ``json`` or ``form``. With ``split``
   or ``mirror``, steps 2 and 3 are done for each upstream that may get the request.

Every expression lists the roots that it reads (``Expression.names``), and ``Scope.read`` registers them. Every
``{name}`` of a template goes through ``Scope.resolve``, which registers the root and returns the place of the value. In
a template a name without a dot also means a parameter of the path or of the query. A root that is a call's name is
added to ``Scope.needs``. A bound name adds no dependency: the expression that makes its value has added its own.
``needs`` of the scope, in the order of the configuration, is ``CallPlan.needs``.

**From needs to plan.** The needs of all calls are a directed graph. ``find_cycle`` reports a cycle as a mistake, so the
graph of a valid plan is acyclic, and each call can start at some time. The plan holds the graph in the forms that
``plan_run.py`` uses: ``initial_calls`` (no needs), ``dependants`` by call, and ``dependency_counts``. A call that no
other call names is a candidate for ``combine = "first"`` and ``"quorum"``; a call that another call names only serves
it.

**What else names decide.** The scope also records which header fields, parameters and body members of the client a call
sends (``reads``). ``forget_reads`` clears them after ``when`` and ``each``, which send nothing. These records decide
whether a call carries a credential of the client. The answer's ``Vary`` names the header fields that the route reads
(``RouteNames.headers``), also in ``when``, ``each`` and the answer, and those that its calls forward, but no
``CONDITIONS``. If a call forwards ``"*"``, ``Vary`` cannot name every field: the answer is private instead.

**Mistakes.** A part that cannot be compiled raises ValueError. ``collect`` turns the error into an entry of
``problems`` with the path of the key, and the compiler goes on with the next part. Three rules make one run
find the independent mistakes, and no consequences of one:

- An unknown upstream is replaced by ``_UNKNOWN_UPSTREAM``, so that the rest of its call is checked.
- A table that error recovery has changed may lack names (``RouteNames.incomplete_tables``); a name that is unknown in
  such a table is no mistake.
- Needs are computed for invalid calls too, so that a cycle through such a call is found.

``compile`` returns a plan only if ``problems`` is empty. A plan is immutable and holds nothing of any request.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from werkzeug.routing import Map

from ...config.schema.access.credential_names import credential_fields, credentials_of
from ...config.schema.sections import PUBLIC, Call, Config, KeyPath, Redirect, Respond, Upstream
from ...core.errors import ConfigError, ConfigProblem
from ...core.http.forward_all import CONDITIONS, STAR
from ...core.http.hop_by_hop import is_hop_by_hop
from ..answer.status_fields import CREATED, STATUS_FROM
from ..call_result import CallRules
from ..decode import ACCEPT
from ..proxy.any_method import ANY_METHOD
from ..proxy.proxy_compiler import PATH_VARIABLE, ProxyCompiler
from ..request.conditions import why_not_forwarded
from ..request.credentials import carries_credential, is_credential
from ..request.request_template import BodyTemplate, RequestField, RequestTemplate
from ..request.upstream_choice import SPLIT_KEY_ROOTS
from ..static_response import NO_UPSTREAM, RedirectTemplate, StaticCaller, StaticResponse
from ..text.expression import Expression, compile_expression
from ..text.field_template import FieldTemplate, compile_field
from ..text.list_reads import members_read_as_lists
from ..text.template import TargetTemplate, Variable, compile_target
from .lazy_rule import LazyRule
from .never_sent import never_sent_by_calls, never_sent_by_upstreams
from .part_compiler import PartCompiler, with_key_paths
from .plan import CREDENTIAL_HEADERS, CallPlan, FanOutPlan, Plan, as_unread, find_cycle, with_traffic
from .route_groups import CONVERTER, RouteGroups, pattern_of
from .scope import RouteNames, Scope

_OWN_ANSWER_FIELDS = frozenset(
    {
        "cache-control",
        "content-encoding",
        "content-type",
        "etag",
        "proxy-status",
        "server",
        "server-timing",
        "set-cookie",
        "umbel-completed",
        "vary",
        "x-request-id",
    }
)
# Replaces an unknown upstream, so that the rest of the call is checked.
_UNKNOWN_UPSTREAM = Upstream(urls=("http://unknown",))
_ORIGIN = re.compile(r"(?:https?://[^/]*)?")


def compile_route(config: Config, index: int, groups: RouteGroups | None = None) -> Plan:
    """Compile the plan of one route.

    Args:
        config: the configuration.
        index: the route's index in ``config.routes``.
        groups: the groups of the routes of ``config``, which all of its routes can share. None: they are made here, in
            a time that is proportional to the number of routes.

    Raises:
        ConfigError: the route is invalid; carries all of its mistakes.
    """
    compiler = _RouteCompiler(config, index, groups or RouteGroups(config))
    plan = compiler.compile()
    if plan is None:
        raise ConfigError([ConfigProblem(config.where(path), None, "", reason) for path, reason in compiler.problems])
    return plan


def compile_routes(config: Config) -> list[Plan]:
    """Compile the plans of all routes, in the order of ``config.routes``.

    Raises:
        ConfigError: a route is invalid; carries all of its mistakes.
    """
    groups = RouteGroups(config)
    return [compile_route(config, index, groups) for index in range(len(config.routes))]


def check(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield all mistakes in the routes and in the header fields of the upstreams, each with the path of its key.

    This is a ``Check`` for ``config.loading.load.load``.
    """
    seen: dict[tuple[KeyPath, str], None] = {}
    taken: dict[tuple[str, str | None, str, str | None], int] = {}
    groups = RouteGroups(config)
    grouped = {index: indexes[0] for indexes in groups.groups() for index in indexes if len(indexes) > 1}
    for index, route in enumerate(config.routes):
        compiler = _RouteCompiler(config, index, groups)
        compiler.compile()
        seen.update(dict.fromkeys(compiler.problems))
        at: KeyPath = ("routes", index)
        # Two placeholders are no two equal routes.
        unsure = config.is_placeholder((*at, "path")) or config.is_placeholder((*at, "methods"))
        # A route with all methods leaves those that another route names to that route.
        own = ("any method of",) if compiler.methods is ANY_METHOD else compiler.methods
        for method in () if unsure else own:
            first = taken.setdefault((method, route.host, pattern_of(route.path), route.match), index)
            if first != index:
                place, same = config.where(("routes", first, "path")), " with the same match" if route.match else ""
                seen[
                    ("routes", index, "path"),
                    f"{method} {route.path} is a route already{same}, at {place}; remove one of them",
                ] = None
        leader = config.routes[grouped.get(index, index)]
        if leader.path != route.path:
            said = f'write "{leader.path}": routes that differ in match must give their variables the same names'
            seen[(*at, "path"), said] = None
        if leader.encoded_slash != route.encoded_slash:
            said = "must be the same in all routes that differ in match only: the path is read before match is"
            seen[(*at, "encoded_slash"), said] = None
        if leader.cors != route.cors:
            # A preflight has none of the fields that match reads, so it cannot choose among these routes.
            place = config.where(("routes", grouped[index], "path"))
            said = f"must be the same in all routes that differ in match only; the first one is at {place}"
            seen[(*at, "cors"), said] = None
        seen.update(dict.fromkeys(never_sent_by_calls(config, index)))
    seen.update(dict.fromkeys(never_sent_by_upstreams(config)))
    yield from seen


def _why_no_slashes(path: str) -> str:
    """The reason why the variables of a path cannot keep encoded slashes; empty: they can."""
    converters = [(match[1] or "").partition("(")[0] for match in CONVERTER.finditer(path)]
    if not converters:
        return '"keep" has an effect only in a path with variables'
    if "path" in converters:
        return '"keep" is not possible with <path:…>, whose value has slashes that are not encoded; write <name>'
    return ""


def _check_match(expression: Expression) -> None:
    """Check that an expression can choose a route: it must read single header fields and query parameters only.

    Raises:
        ValueError: it reads something else, or nothing; the message is one sentence.
    """
    for root, name in expression.names:
        if root not in ("headers", "query") or name is None:
            raise ValueError("match reads single header fields and query parameters, such as headers.x_beta or query.v")
        if root == "headers" and (name != name.lower() or is_hop_by_hop(name.replace("_", "-").encode())):
            raise ValueError(f'"{name}" is not in lower case, or belongs to one connection; name another header field')
    if not expression.names:
        raise ValueError("match reads nothing of the request; remove it, or name a field, such as headers.x_beta")


def _check_allow(expression: Expression) -> None:
    """Check that an expression can decide before the body is received and before any call.

    Raises:
        ValueError: it reads something else, or nothing; the message is one sentence.
    """
    if not {name.root for name in expression.names} <= SPLIT_KEY_ROOTS:
        raise ValueError(f"allow is decided before any call, so it reads only {', '.join(sorted(SPLIT_KEY_ROOTS))}")
    if not expression.names:
        raise ValueError("allow reads nothing of the request; remove it, or compare a part, such as auth.claims.tenant")


def _reads_identity(expression: Expression) -> bool:
    return any(name.root == "auth" for name in expression.names)


def _carries_credential(call: Call, request_template: RequestTemplate, scope: Scope) -> bool:
    """Whether a call sends a credential of the client. ``scope`` holds the names that its request reads."""
    names = [*scope.reads, *call.forward_headers, *call.forward_query, *(["cookie"] if call.forward_cookies else [])]
    configured = (*request_template.upstream_headers, *request_template.headers)
    own = any(field.fixed is not None and is_credential(field.name.decode()) for field in configured)
    return carries_credential(names, body=call.forward_body or scope.reads_body, own=own)


class _CallForm(NamedTuple):
    """A call as one of its upstreams gets it: its own upstream, one of its split, or that of its mirror."""

    call: Call
    """The call, with this upstream as its upstream."""
    upstream: Upstream | None
    """None: the call names no upstream, or an unknown one."""
    template: RequestTemplate | None
    """None: the call is invalid."""
    conditions: tuple[str, ...]
    scope: Scope


def _named_upstreams(call: Call) -> Iterator[tuple[KeyPath, str | None]]:
    """Yield the upstreams of a call, in the order that ``with_traffic`` expects, each with the key that names it."""
    yield ("upstream",), call.upstream
    yield from ((("split", name), name) for name in call.split)
    if call.mirror is not None:
        yield ("mirror", "upstream"), call.mirror.upstream


class _RouteCompiler(PartCompiler):
    """Compiler of one route. ``problems`` holds the mistakes found so far. ``compile`` may be called once."""

    def __init__(self, config: Config, index: int, groups: RouteGroups) -> None:
        super().__init__(config, index)
        self._groups = groups
        self.methods: Collection[str] = ()
        """The methods of the route, as in ``Plan``; set by ``compile``, also if the route is invalid."""
        self._names = RouteNames(
            frozenset(self._route_params()), frozenset(self.route.query_params), tuple(self.route.calls)
        )
        self._names.has_auth = self._has_auth
        self._credentials = credentials_of(config.auth.values())
        tables = (("path", ()), ("query", self._names.query_params), ("calls", self._names.calls))
        incomplete_tables = {key for key, names in tables if config.has_lost((*self.at, key), names)}
        self._names.incomplete_tables = frozenset(
            incomplete_tables | {"path"} if self.problems else incomplete_tables
        )  # A problem at this point is one of the path: no other key has been checked.

    @property
    def _has_auth(self) -> bool:
        return self.route.auth not in (None, PUBLIC)

    def compile(self) -> Plan | None:
        """Compile the route; None: it is invalid, and ``problems`` says why."""
        route = self.route
        calls = [self._call(name, call) for name, call in route.calls.items()]
        if cycle := find_cycle({name: needs for name, _, needs in calls}):
            self.problem(("calls", cycle[0]), f"these calls wait for each other: {' → '.join(cycle)}")
        answer_expression, answer_headers, read = self._answer()
        static = self._static()
        match = self._match()
        allow = self._allow()
        chosen_by = (*self._chosen_by(), *self._credential_fields())
        passed = None if route.proxy is None else ProxyCompiler(self, self._names, route.proxy)
        proxy = None if passed is None else passed.compile(chosen_by, self._credentials)
        self.methods = self._methods()
        candidates = self._candidates({name: needs for name, _, needs in calls})
        if self.problems:
            return None
        read = read.union(*(needs for _, _, needs in calls))
        if route.stream:  # A line must not hold a line end, and a text that came may.
            read = read.union(route.calls)
        plans = tuple(plan if name in read else as_unread(plan) for name, plan, _ in calls if plan is not None)
        forwarded = {name: None for plan in plans for name in plan.config.forward_headers}
        # With "*" any header field may affect the answer. Vary cannot name all of them, and "Vary: *" forbids every
        # cache to reuse the answer. So the answer is private instead.
        any_header = forwarded.pop(STAR, ...) is None
        cookies = any(plan.config.forward_cookies for plan in plans)
        vary = dict.fromkeys(header.replace("_", "-") for header in self._names.headers) | forwarded
        vary |= dict.fromkeys(chosen_by)
        for name in CONDITIONS & vary.keys():
            del vary[name]  # A condition selects no representation (RFC 9110 section 12.5.5).
        if cookies:
            vary["cookie"] = None
        return Plan(
            route,
            plans,
            {plan.name: plan for plan in plans},
            {name: tuple(plan for plan in plans if name in plan.needs) for name in route.calls},
            candidates,
            self.methods,
            self._uses_body(),
            None if self._names.whole_body else frozenset(self._names.body_fields),
            frozenset(self._names.body_lists) if route.body == "form" else frozenset(),
            tuple(self._names.headers),
            match,
            tuple(vary),
            any_header or self._names.uses_client or self._has_auth or not CREDENTIAL_HEADERS.isdisjoint(vary),
            answer_expression,
            answer_headers,
            self.config.where,
            {"all": 0, "first": 1, "quorum": route.quorum or 0}[route.combine],
            tuple(plan for plan in plans if not plan.needs),
            {plan.name: len(plan.needs) for plan in plans if plan.needs},
            static,
            proxy,
            self._names.uses_client,
            tuple(self._names.cookies),
            self._names.uses_auth,
            allow,
        )

    def _match(self) -> Expression | None:
        text = self.route.match
        expression = None if text is None else self.compiled(("match",), text)
        if expression is not None:
            self.collect(("match",), lambda: _check_match(expression))
        return expression

    def _allow(self) -> Expression | None:
        if not self._has_auth:  # A constraint of the route has reported it.
            return None
        scope = Scope(self._names)
        before = len(self.problems)
        expression = self.expression(("allow",), self.route.allow, scope)
        if expression is not None and len(self.problems) == before:  # One mistake is reported once.
            self.collect(("allow",), lambda: _check_allow(expression))
        return expression

    def _credential_fields(self) -> Iterator[str]:
        """Yield the header fields in which the route looks for credentials."""
        for name in self.route.auth or ():
            if name in self.config.auth:
                yield from credential_fields(self.config.auth[name])

    def _chosen_by(self) -> Iterator[str]:
        """Yield the header fields by which a request came to this route and not to another one with the same path.

        A shared cache must not give the answer of one route to a request for the other. A client can choose its own
        host in X-Forwarded-Host if a trusted proxy passes the field on.
        """
        for text in self._groups.matches_beside(self.route):
            with suppress(ValueError):  # A mistake is reported at its own route.
                names = compile_expression(text, ()).names
                yield from (name.field.replace("_", "-") for name in names if name.root == "headers" and name.field)
        if self.config.server.trusted_proxies and self._groups.any_host:
            yield from ("x-forwarded-host", "forwarded")

    def _route_params(self) -> Iterator[str]:
        try:
            rule = LazyRule(self.route.path, endpoint="route")
            Map([rule])
        except Exception as error:  # noqa: BLE001  # werkzeug compiles the rule, and calls converters with its arguments
            self.problem(("path",), f'"{self.route.path}" is not a valid route: {error}')
        else:
            if self.route.encoded_slash == "keep" and (reason := _why_no_slashes(self.route.path)):
                self.problem(("encoded_slash",), reason)
            yield from rule.arguments

    def _call(self, name: str, call: Call) -> tuple[str, CallPlan | None, tuple[str, ...]]:
        at: KeyPath = ("calls", name)
        scope = Scope(self._names, name)
        when = self.expression((*at, "when"), call.when, scope)
        fan_out: FanOutPlan | None = None
        if call.each is not None:
            source = self.compiled((*at, "each"), call.each)
            if source is not None:
                self._names.body_lists.update(members_read_as_lists(source.tree, "body", as_list=True))
            client_parameter = self.collect((*at, "each"), lambda: scope.read(source)) if source is not None else None
            scope.item_source = client_parameter or ""
            if source is not None and _reads_identity(source):
                scope.of_identity.add("item")
            fan_out = FanOutPlan(source, scope.item_source) if source is not None else None
        split_key = self.split_key((*at, "split_key"), call.split_key, scope)
        response = self._static_response((*at, "respond"), call.respond)
        scope.forget_reads()  # ``when``, ``each`` and ``split_key`` send nothing to the upstream.
        forms = [self._form(at, key, each, call, scope) for key, each in _named_upstreams(call)]
        needs = tuple(other for other in self.route.calls if other in scope.needs)
        self._check_same_conditions(at, forms)
        plans: list[CallPlan] = []
        for form in forms:
            if form.template is None or (form.upstream is None and response is None):
                return name, None, needs
            rules = replace(self._rules(name, form, None if response is None else StaticCaller(response)), needs=needs)
            plans.append(
                CallPlan(name, form.call, form.upstream, rules, form.template, needs, when, fan_out, form.conditions)
            )
        own, *others = plans
        return name, own if response else with_traffic(own, others, split_key, self.route.deadline), needs

    def _form(self, at: KeyPath, key: KeyPath, upstream: str | None, call: Call, scope: Scope) -> _CallForm:
        """Compile the call as one of its upstreams gets it, which the key ``key`` of the call names."""
        found = self._upstream((*at, *key), upstream)
        call = call if upstream == call.upstream else call.model_copy(update={"upstream": upstream})
        # The scopes of a call share their set of needs: the call starts when every upstream could be chosen.
        scope = replace(scope, reads={}, reads_body=False)
        template = self._request_template(at, call, found or _UNKNOWN_UPSTREAM, scope)
        return _CallForm(call, found, template, self._conditions(at, call, template), scope)

    def _rules(self, name: str, form: _CallForm, caller: StaticCaller | None) -> CallRules:
        call, upstream, template, answer = form.call, form.upstream, form.template, self.route.answer
        assert template is not None
        answering = STATUS_FROM if answer.status_from == name else frozenset()
        if answer.status == CREATED and call.each is None:
            answering |= {CREATED}
        return CallRules.of(
            name,
            call,
            upstream=call.upstream or NO_UPSTREAM,
            timeout=None if upstream is None else upstream.timeout,
            max_body=None if upstream is None else upstream.max_body,
            redirects=call.redirects or ("fail" if upstream is None else upstream.redirects),
            answer_headers=self._forwarded_fields(name),
            credential=_carries_credential(call, template, form.scope),
            conditions=form.conditions,
            answering=answering,
            caller=caller,
        )

    def _check_same_conditions(self, at: KeyPath, forms: list[_CallForm]) -> None:
        for form in forms:
            if form.conditions != forms[0].conditions and form.call.upstream in form.call.split:
                other = f'its headers send other conditions than those of "{forms[0].call.upstream}"'
                self.problem((*at, "split", form.call.upstream), f"{other}; write them in the headers of the call")

    def _conditions(self, at: KeyPath, call: Call, request_template: RequestTemplate | None) -> tuple[str, ...]:
        """The conditional request fields that a call sends on, by ``forward_headers`` or in a template."""
        found: dict[str, KeyPath] = {
            name: (*self.at, *at, "forward_headers", place) for place, name in enumerate(call.forward_headers)
        }
        if request_template is not None:
            tables: list[tuple[KeyPath, tuple[RequestField, ...]]] = [
                ((*self.at, *at, "headers"), request_template.headers),
                (("upstreams", call.upstream or "", "headers"), request_template.upstream_headers),
            ]
            for where, fields in tables:
                for field, text, _ in fields:
                    if request_template.reads_headers(text):
                        found.setdefault(field.decode(), (*where, field.decode()))
        conditions = {name: path for name, path in found.items() if name in CONDITIONS}
        for name, path in conditions.items():
            if reason := why_not_forwarded(self.route, name):
                self.problem(path, reason, absolute=True)
        return tuple(conditions)

    def _forwarded_fields(self, call: str) -> frozenset[bytes]:
        """The names of the call's response fields that the answer forwards, in lower case."""
        answer = self.route.answer
        names = {name.lower().encode("ascii") for name in answer.forward_headers.get(call, ())}
        return frozenset(names | {b"set-cookie"} if call in answer.forward_cookies else names)

    def _upstream(self, at: KeyPath, name: str | None) -> Upstream | None:
        if name is None:
            return None
        upstream = self.config.upstreams.get(name)
        if upstream is None:
            near = difflib.get_close_matches(name, self.config.upstreams, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; add [upstreams.{name}]"
            self.problem(at, f'there is no upstream "{name}"{hint}')
        return upstream

    def _request_template(self, at: KeyPath, call: Call, upstream: Upstream, scope: Scope) -> RequestTemplate | None:
        before = len(self.problems)
        bound = tuple(self.params((*at, "with"), call.with_, scope))
        scope.bound = {param.name: param.client_parameter for param in bound}
        scope.of_identity.update(param.name for param in bound if _reads_identity(param.expression))
        scope.bound_incomplete = self.config.has_lost((*self.at, *at, "with"), call.with_)
        above: KeyPath = ("upstreams", call.upstream or "")
        params = dict(with_key_paths((*above, "params"), upstream.params))
        params |= dict(with_key_paths((*self.at, *at, "params"), call.params))
        target = self._target((*at, "path"), call.path or "/", scope)
        usual = self.request_fields((*above, "headers"), upstream.headers, scope)
        headers = self.request_fields((*self.at, *at, "headers"), call.headers, scope)
        compiled = [self.param(name, source, where, scope) for name, (where, source) in params.items()]
        body = self._body(at, call, scope)
        if target is None or len(self.problems) > before:
            return None
        return RequestTemplate(
            call.method or ("POST" if body is not None or call.forward_body else "GET"),
            ACCEPT[call.decode],
            upstream.product,
            target,
            usual,
            headers,
            bound,
            tuple(param for param in compiled if param is not None),
            body,
            call.forward_headers,
            frozenset(call.forward_query),
            call.forward_cookies,
            call.forward_body,
            upstream.forwarded,
            upstream.deadline_header or None,
            self._credentials,
        )

    def _is_query_list(self, variable: Variable) -> bool:
        """Whether a variable is a whole query parameter of a list type."""
        param = self.route.query_params.get(variable.fields[0]) if variable.root == "query" else None
        return param is not None and param.item_type is not None and len(variable.fields) == 1

    def _target(
        self, at: KeyPath, text: str, scope: Scope, keeps_slashes: Collection[str] = ()
    ) -> TargetTemplate | None:
        target = self.collect(at, lambda: scope.resolved(lambda resolve: compile_target(text, resolve, keeps_slashes)))
        for variable in target.path if target is not None else ():
            if isinstance(variable, Variable) and self._is_query_list(variable):
                reason = f'"{variable.name}" is a list, and a path segment takes one value; write it into the query'
                self.problem(at, reason)
        return target

    def _body(self, at: KeyPath, call: Call, scope: Scope) -> BodyTemplate | None:
        bodies: list[BodyTemplate] = []
        for key, source in (("json", call.json_), ("form", call.form)):  # Check both, also if both are given.
            if isinstance(source, str):
                whole = self.param("", source, (*self.at, *at, key), scope)
                bodies += [BodyTemplate(key == "form", whole)] if whole is not None else []
            elif source is not None:
                bodies.append(BodyTemplate(key == "form", None, tuple(self.params((*at, key), source, scope))))
        return bodies[0] if bodies else None

    def _answer(self) -> tuple[Expression | None, tuple[tuple[str, FieldTemplate], ...], frozenset[str]]:
        """Compile the ``shape`` and the header fields of the answer; the last member names the calls that they read."""
        answer = self.route.answer
        scope = Scope(self._names)
        expression = self.expression(("answer", "shape"), answer.shape, scope)
        headers: list[tuple[str, FieldTemplate]] = []
        for name, text in answer.headers.items():
            at = ("answer", "headers", name)
            self._check_answer_field(at, name)
            template = self.collect(at, partial(scope.resolved, partial(compile_field, name, text)))
            if template is not None:
                headers.append((name, template))
        for key, table in (("forward_headers", answer.forward_headers), ("forward_cookies", answer.forward_cookies)):
            for name, fields in table.items():
                if name not in self.route.calls and "calls" in self._names.incomplete_tables:
                    continue
                if name not in self.route.calls:
                    near = difflib.get_close_matches(name, self.route.calls, n=1)
                    hint = f'; did you mean "{near[0]}"?' if near else ""
                    self.problem(("answer", key, name), f'there is no call "{name}"{hint}')
                elif self.route.calls[name].each is not None:
                    self.problem(
                        ("answer", key, name),
                        f'"{name}" has many responses (each), so none can be forwarded; remove it',
                    )
                for field in fields if key == "forward_headers" else ():
                    self._check_answer_field(("answer", key, name), field)
        self._check_status_from()
        if answer.status in (204, 205) and (self.route.stream or answer.shape is not None):
            reason = f"an answer with status {answer.status} has no body; remove shape and stream, or the status"
            self.problem(("answer", "status"), reason)
        return expression, tuple(headers), frozenset(scope.needs)

    def _check_status_from(self) -> None:
        answer, at = self.route.answer, ("answer", "status_from")
        name = answer.status_from
        if name is None or (name not in self.route.calls and "calls" in self._names.incomplete_tables):
            return
        if name not in self.route.calls:
            near = difflib.get_close_matches(name, self.route.calls, n=1)
            self.problem(at, f'there is no call "{name}"' + (f'; did you mean "{near[0]}"?' if near else ""))
        elif self.route.calls[name].each is not None:
            self.problem(at, f'"{name}" has many responses (each), so none gives the status; remove it')
        if self.route.stream:
            self.problem(at, "the status of a stream is sent before any call has ended; remove status_from or stream")

    def _static(self) -> StaticResponse | RedirectTemplate | None:
        """The response of a route without a composition; None: it has one, or the response is invalid."""
        route = self.route
        if route.redirect is not None:
            return self._redirect(route.redirect)
        if route.respond is not None:
            for name in route.respond.headers:
                if name != "content-type":
                    self._check_answer_field(("respond", "headers", name), name)
        return self._static_response(("respond",), route.respond)

    def _static_response(self, at: KeyPath, respond: Respond | None) -> StaticResponse | None:
        if respond is None:
            return None
        return self.collect((*at, "file"), lambda: StaticResponse.of(respond))

    def _redirect(self, redirect: Redirect) -> RedirectTemplate | None:
        found = _ORIGIN.match(redirect.to)
        assert found is not None  # It matches the empty text.
        scope, at, path = Scope(self._names), ("redirect", "to"), redirect.to[found.end() :] or "/"
        target = self._target(at, path, scope, PATH_VARIABLE.findall(self.route.path))
        if self._names.uses_body:
            self.problem(at, "a redirect cannot read the request's body: it is sent without waiting for the body")
        if target is None:
            return None
        if redirect.query == "keep" and any(isinstance(part, Variable) for part in target.query):
            reason = 'query = "keep" sends all parameters of the client already; remove {?…} and {&…}'
            self.problem(at, reason)
        return RedirectTemplate(redirect.status, found[0], target, redirect.query == "keep")

    def _check_answer_field(self, at: KeyPath, name: str) -> None:
        if name in _OWN_ANSWER_FIELDS:
            remedy = "write cache_control in answer" if name == "cache-control" else "remove it"
            self.problem(at, f'"{name}" of an answer is written by Umbel; {remedy}')
        elif is_hop_by_hop(name.encode("ascii")):
            self.problem(at, f'"{name}" belongs to one connection and is never forwarded; remove it')

    def _methods(self) -> Collection[str]:
        methods = self.route.methods
        if methods is None and self.route.proxy is not None:
            return ANY_METHOD
        if methods is None:
            return ("POST",) if self._uses_body() else ("GET",)
        if self._uses_body() and (bodiless := [method for method in methods if method in ("GET", "HEAD")]):
            reason = f"the route uses the request's body, but a {bodiless[0]} request has none; remove {bodiless[0]}"
            self.problem(("methods",), reason)
        return methods

    def _uses_body(self) -> bool:
        return self._names.uses_body or any(call.forward_body for call in self.route.calls.values())

    def _candidates(self, needs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        if self.route.combine == "all":
            return tuple(needs)
        named = {other for others in needs.values() for other in others}
        candidates = tuple(name for name in needs if name not in named)
        if (self.route.quorum or 0) > len(candidates) and "calls" not in self._names.incomplete_tables:
            self.problem(
                ("quorum",),
                f"the quorum is more than the number of calls that count, {len(candidates)}: a call that another call "
                "names does not count",
            )
        return candidates
