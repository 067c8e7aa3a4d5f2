"""Plan of a route: its compiled calls, and the directed acyclic graph of their dependencies.

Immutable; holds nothing of any request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ...config.schema.sections import PUBLIC, Call, KeyPath, Route, Upstream
from ...core.call import PreparedRequest
from ...core.http.forward_all import STAR
from ...core.model import Inputs, Json
from ...policy.split import Split
from ..answer.cache_control import allows_shared, to_private
from ..answer.status_fields import CREATED
from ..call_result import CallRules
from ..proxy.proxy_plan import ProxyPlan
from ..request.conditions import answering_statuses, sent_conditions
from ..request.request_template import RequestTemplate
from ..request.upstream_choice import UpstreamChoice
from ..static_response import RedirectTemplate, StaticResponse
from ..text.expression import Expression, ExpressionError
from ..text.field_template import FieldTemplate, set_client_texts
from ..text.template import BadValueError


@dataclass(frozen=True, slots=True)
class FanOutPlan:
    """The list expression of an ``each``."""

    source: Expression
    client_parameter: str
    """Words for the parameters of the client's request that the list is made of; empty if it has another source."""


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A compiled call of a route."""

    name: str
    config: Call
    upstream: Upstream | None
    """The upstream; None: the call has a ``respond`` and names no upstream."""
    rules: CallRules
    request_template: RequestTemplate
    needs: tuple[str, ...]
    """The dependencies of the call, in config order. The call starts as soon as all of them have values."""
    when: Expression | None
    """The condition of the call; None: the call is always made."""
    fan_out: FanOutPlan | None
    """The list of the call's ``each``; None: the call has no ``each``."""
    conditions: tuple[str, ...] = ()
    """The names of the conditional request fields that the call forwards."""
    split: SplitPlan | None = None
    """The choice of the upstream; None: it is ``upstream`` for every request."""
    mirror: MirrorPlan | None = None
    """The copies of the call's requests; None: there are none."""

    def rules_for(self, method: str, headers: Mapping[str, str]) -> CallRules:
        """The call's rules for one request: its conditions add the statuses that the answer takes over.

        Args:
            method: the method of the inbound request.
            headers: its header fields, with names in lower case.
        """
        answering = answering_statuses(sent_conditions(self.conditions, headers), method)
        return replace(self.rules, answering_statuses=self.rules.answering_statuses | answering)


@dataclass(frozen=True, slots=True)
class SplitPlan(UpstreamChoice):
    """The compiled ``split`` of a call."""

    variants: Mapping[str, CallPlan]
    """The call as each upstream gets it, by the name of the upstream. None of them has a split."""

    def chosen(self, context: Mapping[str, Json], draw: Callable[[], float]) -> CallPlan:
        """The call for one request. ``draw``: see ``Split.choose``.

        Raises:
            ExpressionError: as ``key_of``.
        """
        return self.variants[self.upstream(context, draw)]


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """The compiled ``mirror`` of a call."""

    call: CallPlan
    """The call as the mirror's upstream gets it."""
    share: float
    """The share of the requests that are copied."""
    timeout: float
    """Seconds for which a copy may last."""


class Copy(NamedTuple):
    """A copy of a call's request that is to be made: the mirror, and the values of the request's templates."""

    mirror: MirrorPlan
    context: Mapping[str, Json]
    inputs: Inputs

    def prepare(self) -> PreparedRequest | None:
        """Make the request; None: a value cannot be sent in its place (in the headers or params of the upstream)."""
        try:
            return self.mirror.call.request_template.prepare(self.context, self.inputs)
        except (BadValueError, ExpressionError):
            return None


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled route."""

    route: Route
    calls: tuple[CallPlan, ...]
    """The calls in config order, which is also the order of the answer."""
    by_name: Mapping[str, CallPlan]
    dependants: Mapping[str, tuple[CallPlan, ...]]
    """The calls that depend on a call, by the name of that call."""
    candidates: tuple[str, ...]
    """The calls that ``combine`` counts: with "all" every call, else the calls on which no other call depends."""
    methods: Collection[str]
    """The methods of the route, in their order; ``ANY_METHOD`` for a proxy route that names none."""
    uses_body: bool
    body_fields: frozenset[str] | None
    """The members of the request's body that expressions and templates read; None: the body as a whole."""
    form_lists: frozenset[str]
    """The fields of the request's form that expressions read as lists."""
    headers: tuple[str, ...]
    """The request headers that expressions and templates read, in snake case."""
    match: Expression | None
    """The expression that a request must fulfil for the route to answer it; None: there is none."""
    vary: tuple[str, ...]
    """The names for the field Vary of the answer, as they are written in a message."""
    private: bool
    """Whether the answer depends on authorization, cookies, all header fields or the client's address, so that no
    shared cache may store it."""
    answer_expression: Expression | None
    """The ``shape``; None: the answer is made of the calls' values, as ``combine`` says."""
    answer_headers: tuple[tuple[str, FieldTemplate], ...]
    where: Callable[[KeyPath], str]
    """Returns ``file:line`` of a key, for the record of a failed expression."""
    needed: int
    """The number of successful ``candidates`` that decide the answer; 0: the answer is made of all calls."""
    initial_calls: tuple[CallPlan, ...]
    """The calls without dependencies, in config order."""
    dependency_counts: Mapping[str, int]
    """The number of dependencies of each call that has any, by call name."""
    static: StaticResponse | RedirectTemplate | None = None
    """The response of a route without a composition; None: the route has a composition or a ``proxy``."""
    proxy: ProxyPlan | None = None
    """The plan of a proxy route; None: the route is none."""
    reads_client: bool = False
    """Whether an expression or a template reads ``client``."""
    cookies: tuple[str, ...] = ()
    """The cookies of the request that expressions and templates read."""
    reads_auth: bool = False
    """Whether an expression or a template reads ``auth``."""
    allow: Expression | None = None
    """The condition that a request must fulfil once its identity is known; None: there is none."""
    has_mirrors: bool = field(init=False)
    """Whether requests of any call are copied."""
    is_plain_object: bool = field(init=False)
    """Whether a complete answer is the object of the calls' values, with the route's status and no own header field."""
    cache_control: str | None = field(init=False)
    """The configured Cache-Control of complete answers; None: it is computed from the responses."""

    def __post_init__(self) -> None:
        """Compute at load the fields that every answer needs."""
        answer = self.route.answer
        fields = self.answer_headers or answer.forward_headers or answer.forward_cookies
        usual = self.answer_expression is None and self.route.combine == "all" and answer.status != CREATED
        usual = usual and answer.status_from is None
        object.__setattr__(
            self, "is_plain_object", usual and not fields and not any(call.conditions for call in self.calls)
        )
        object.__setattr__(self, "has_mirrors", any(call.mirror is not None for call in self.calls))
        configured = None if answer.cache_control == "parts" else answer.cache_control
        if configured is not None and self.has_auth and not allows_shared(configured):
            configured = to_private(configured)
        object.__setattr__(self, "cache_control", configured)

    def answers(self, method: str) -> bool:
        """Whether the route has a method. GET includes HEAD."""
        return method in self.methods or (method == "HEAD" and "GET" in self.methods)

    @property
    def has_auth(self) -> bool:
        """Whether each request of the route has an identity."""
        return self.route.auth not in (None, PUBLIC)

    @property
    def forwarded_query(self) -> frozenset[str]:
        """The names of the client's query parameters that calls or a redirect forward; ``"*"`` stands for all."""
        if self.route.redirect is not None and self.route.redirect.query == "keep":
            return frozenset((STAR,))
        return frozenset(name for call in self.calls for name in call.config.forward_query)

    @property
    def takes_if_match(self) -> bool:
        """Whether a call sends the client's If-Match, or an expression or template reads it."""
        return "if_match" in self.headers or any("if-match" in call.conditions for call in self.calls)

    @property
    def deadline(self) -> float:
        """The route's deadline in seconds."""
        return self.route.deadline


def request_context(plan: Plan, inputs: Inputs) -> dict[str, Json]:
    """The evaluation context of a request before any call has ended."""
    context: dict[str, Json] = {"path": inputs.path, "query": inputs.query, "body": inputs.body}
    context["headers"] = {}
    if plan.headers:
        given = inputs.headers
        set_client_texts(context, "headers", {name: given.get(name.replace("_", "-")) for name in plan.headers})
    if plan.reads_auth:
        context["auth"] = None if inputs.identity is None else inputs.identity.values
    if plan.reads_client:
        context["client"] = {"ip": inputs.client or None}
    if plan.cookies:
        given = inputs.cookies
        set_client_texts(context, "cookies", {name: given.get(name) for name in plan.cookies})
    return context


def with_traffic(own: CallPlan, others: list[CallPlan], key: Expression | None, deadline: float) -> CallPlan:
    """Add the split and the mirror of its configuration to the plan of a call.

    A mirror copies no request that its own upstream gets, nor one with a method that it does not name.

    Args:
        own: the call as its own upstream gets it.
        others: the call as each upstream of the split gets it, and last as the mirror's upstream gets it, if there is
            a mirror.
        key: the ``split_key``.
        deadline: the deadline of the route, in seconds.
    """
    config = own.config
    calls = [own, *others]
    if config.mirror is not None:
        copied = calls.pop()
        if copied.request_template.method in config.mirror.methods:
            timeout = min(copied.rules.timeout or math.inf, deadline)
            mirror = MirrorPlan(copied, config.mirror.share, timeout)
            calls = [
                call if call.rules.upstream == copied.rules.upstream else replace(call, mirror=mirror) for call in calls
            ]
    own = calls[0]
    if not config.split:
        return own
    variants = {call.rules.upstream: call for call in calls}
    return replace(own, split=SplitPlan(Split(own.rules.upstream, config.split), key, variants))


def as_unread(call: CallPlan) -> CallPlan:
    """The plan of a call whose value no expression or template reads, for each upstream that may get it."""
    split = call.split
    if split is not None:
        split = replace(split, variants={name: as_unread(variant) for name, variant in split.variants.items()})
    return replace(call, rules=replace(call.rules, unread=True), split=split)


CREDENTIAL_HEADERS = frozenset({"authorization", "cookie"})
"""The request fields that identify a client: an answer that depends on one of them is for that client only."""


def find_cycle(needs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The first cycle of a directed graph, such as ``("a", "b", "a")``; empty if the graph has none.

    ``needs`` holds the successors of each node. Takes linear time, and no recursion.
    """
    done: set[str] = set()
    for start in needs:
        trail: dict[str, None] = {}
        stack = [(start, iter(tuple(needs[start])))]
        trail[start] = None
        while stack:
            name, rest = stack[-1]
            for needed in rest:
                if needed in trail:
                    names = list(trail)
                    return (*names[names.index(needed) :], needed)
                if needed not in done and needed in needs:
                    trail[needed] = None
                    stack.append((needed, iter(tuple(needs[needed]))))
                    break
            else:
                stack.pop()
                trail.pop(name)
                done.add(name)
    return ()
