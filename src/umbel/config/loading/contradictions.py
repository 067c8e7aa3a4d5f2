"""Warnings about contradictions: pairs of bounds of which one makes the other useless.

``RULES`` is the only table of them. A rule names two quantities of which the first must not be above the second, and
holds the warning. A quantity is the value of a key, or is computed here (the time limit of a call, the waits between
its attempts, the calls of a route to one upstream at once). So a new pair of keys needs only a new rule. A
contradiction is a warning and no mistake: such a configuration is served.

Other pairs cannot contradict: they bound different things, or the lower one is simply in force (``max_connections`` and
the limit of descriptors, for example).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..schema.policies import Hedge, Retry
from ..schema.proxy import Proxy
from ..schema.reference.written_values import FORMATS, unit_of
from ..schema.section import Section
from ..schema.section_tree import keys_of
from ..schema.sections import Call, Config, KeyPath, Route, Upstream
from ..schema.values.units import format_duration, format_size

HYPERCORN = "hypercorn.toml"
"""The first part of the path of a key of hypercorn.toml."""
GRACEFUL_TIMEOUT = 20.0
"""Seconds: the default of ``graceful_timeout`` in hypercorn.toml."""
_SPENT = 0.95
"""The share of ``memory_limit`` above which requests are refused."""
_DAY = 86400.0


class Quantity(NamedTuple):
    """A number that a configuration states or implies: as it is compared, and as messages show it."""

    value: float
    shown: str
    path: KeyPath
    given: bool
    """Whether the configuration states the number. A default contradicts nothing."""


class Rule(NamedTuple):
    """A rule: the quantity ``key`` must not be above the quantity ``bound``."""

    key: str
    bound: str
    warning: str
    """The warning, with ``{value}``, ``{bound}`` and ``{route}`` for the two values and the route's path."""
    or_equal: bool = False
    """Whether the two must not be equal."""
    either: bool = False
    """Whether the warning is also given if only the bound is stated; it is then about the key of the bound."""


_ENDS_CALL = "is {value}, but the deadline of {route} is {bound}, and ends the call first"
_ENDS_PROXY = "is {value}, but max_lifetime is {bound}, and ends the request first"
_NEVER_SLOW = "is {value}, but the longest deadline of a route is {bound}: nothing is that slow"

RULES: tuple[Rule, ...] = (
    # What clients may send.
    Rule("route.max_body", "server.max_body", "is {value}, but [server] max_body is {bound}: a larger one gets 413"),
    Rule("server.max_target", "server.max_head", "is {value}, but the whole head may have only max_head, {bound}"),
    Rule(
        "uploads",
        "server.memory_limit",
        "is {bound}, but max_uploads bodies of max_body can take {value}: requests are refused long before that",
        either=True,
    ),
    Rule(
        "http2.streams",
        "server.max_in_flight",
        "is {value}, but [server] max_in_flight is {bound}: one client can use all of them",
    ),
    # Times of a call.
    Rule("call.timeout", "route.deadline", _ENDS_CALL),
    Rule("upstream.timeout", "route.deadline", f"{_ENDS_CALL}; write a longer deadline or a shorter timeout"),
    Rule("upstream.connect_timeout", "limit", "is {value}, but a call of {route} may take only {bound}"),
    Rule("retry.backoff", "retry.max_backoff", "is {value}, but no wait is longer than max_backoff, {bound}"),
    Rule(
        "retry.pauses",
        "limit",
        "has waits of up to {value} between its attempts, but a call of {route} may take only {bound}",
        or_equal=True,
    ),
    Rule(
        "hedge.last",
        "limit",
        "comes after {value}, but a call of {route} may take only {bound}: it is never made",
        or_equal=True,
    ),
    # Times of a proxy route.
    Rule("proxy.first_byte", "proxy.max_lifetime", _ENDS_PROXY),
    Rule("proxy.idle_timeout", "proxy.max_lifetime", _ENDS_PROXY),
    Rule("upstream.connect_timeout", "proxy.first_byte", "is {value}, but first_byte of {route} is only {bound}"),
    # Concurrency.
    Rule(
        "upstream.max_queue",
        "server.max_in_flight",
        "is {value}, but no more than max_in_flight, {bound}, requests are served at once",
    ),
    Rule("call.limit", "call.max_items", "is {value}, but no list of this call has more than max_items, {bound}"),
    Rule("call.limit", "upstream.max_concurrency", "is {value}, but the upstream's max_concurrency is {bound}"),
    Rule(
        "fan_out",
        "upstream.max_concurrency",
        "is {bound}, but one request to {route} makes up to {value} calls at once: some of them must wait",
        either=True,
    ),
    Rule(
        "one_replica",
        "ejection.share",
        "is {bound}, but one replica is {value}: no replica is ever ejected",
        either=True,
    ),
    # Stopping and replacing.
    Rule(
        "route.deadline",
        "server.graceful_timeout",
        "is {value}, but graceful_timeout of hypercorn.toml is {bound}: a stop cancels requests that take longer",
    ),
    Rule(
        "server.drain_idle",
        "server.graceful_timeout",
        "is {value}, but graceful_timeout of hypercorn.toml is {bound}, and also closes idle connections",
    ),
    Rule(
        "http.ssl_handshake_timeout",
        "server.head_timeout",
        "is {value}, but [server] head_timeout is {bound}, and a handshake may take no longer",
    ),
    Rule(
        "http.startup_timeout",
        "supervisor.start_timeout",
        "is {value}, but [supervisor] start_timeout is {bound}: a worker that is not ready by then is ended",
    ),
    Rule(
        "supervisor.max_rss",
        "memory.spent",
        "is {value}, but from {bound} on (95 % of [server] memory_limit) a worker refuses requests and does not grow",
    ),
    Rule(
        "supervisor.start_timeout",
        "supervisor.max_lifetime",
        "is {value}, but a worker is replaced at the age of max_lifetime, {bound}",
        or_equal=True,
        either=True,
    ),
    # Records.
    Rule(
        "logs.keep_days",
        "logs.span",
        "is {value}, but keep files of rotate_every each cover only {bound}, and older files are removed",
    ),
    Rule(
        "logs.rotate_size",
        "logs.keep_bytes",
        "is {bound}, but a rotated file may have rotate_size, {value}, and is not compressed: it would be removed",
        either=True,
    ),
    Rule("slow.access", "longest", _NEVER_SLOW),
    Rule("slow.calls", "longest", _NEVER_SLOW),
)

Quantities = dict[str, Quantity]


def check(config: Config, served: Mapping[str, Any] | None = None) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of a key and a warning for each contradiction.

    Args:
        config: a configuration without mistakes.
        served: the data of hypercorn.toml; None: no such file. The path of a key of this file begins with
            ``HYPERCORN``.
    """
    found: dict[tuple[KeyPath, str], list[tuple[Quantity, Quantity, str]]] = {}
    for route, quantities in _scopes(config, served or {}):
        for rule in RULES:
            key, bound = quantities.get(rule.key), quantities.get(rule.bound)
            if key is None or bound is None or key.value < bound.value:
                continue
            if key.value == bound.value and not rule.or_equal:
                continue
            if key.given or (rule.either and bound.given):
                # With ``either`` the warning is about the bound, so its path is that of the bound.
                path = bound.path if rule.either and bound.given else key.path
                found.setdefault((path, rule.warning), []).append((key, bound, route))
    for (path, warning), cases in found.items():
        key, bound, route = min(cases, key=lambda case: case[1].value)
        others = len({case[2] for case in cases} - {route})
        more = f" (and {others} more route{'s' if others > 1 else ''})" if others and "{route}" in warning else ""
        yield path, warning.format(value=key.shown, bound=bound.shown, route=route + more)
    yield from _cache_ages(config)


def _scopes(config: Config, served: Mapping[str, Any]) -> Iterator[tuple[str, Quantities]]:
    """Yield sets of quantities that are compared with each other, each with the path of its route.

    They are those of the process, of each upstream, of each route and of each call.
    """
    process = _process(config, served)
    yield "", process
    for name, upstream in config.upstreams.items():
        yield "", {"server.max_in_flight": process["server.max_in_flight"], **_upstream(name, upstream)}
    for index, route in enumerate(config.routes):
        at: KeyPath = ("routes", index)
        if route.proxy is not None:
            yield from _proxy(route.path, route.proxy, at, config)
            continue
        shared = {name: process[name] for name in ("server.max_body", "server.graceful_timeout")}
        of_route = _quantities(route, "route", at)
        yield route.path, shared | of_route
        for name, fan_out in _fan_outs(route, at).items():
            if upstream_at := config.upstreams.get(name):
                keys = _upstream(name, upstream_at)
                yield (
                    route.path,
                    {"fan_out": fan_out, "upstream.max_concurrency": keys["upstream.max_concurrency"]}
                    if ("upstream.max_concurrency" in keys)
                    else {},
                )
        for name, call in route.calls.items():
            for each in call.upstreams:
                if (upstream_of := config.upstreams.get(each)) is not None:
                    yield route.path, _call(of_route["route.deadline"], call, (*at, "calls", name), each, upstream_of)


def _proxy(route: str, proxy: Proxy, at: KeyPath, config: Config) -> Iterator[tuple[str, Quantities]]:
    """Yield the quantities of a proxy route, which has none of a composition."""
    times = _quantities(proxy, "proxy", (*at, "proxy"))
    yield route, times
    for name in proxy.destinations:
        if (upstream := config.upstreams.get(name)) is not None and "proxy.first_byte" in times:
            keys = _upstream(name, upstream)
            wanted = {"upstream.connect_timeout": keys["upstream.connect_timeout"]}
            yield route, wanted | {"proxy.first_byte": times["proxy.first_byte"]}


def _process(config: Config, served: Mapping[str, Any]) -> Quantities:
    server, supervisor, logs = config.server, config.supervisor, config.logs
    quantities = _quantities(server, "server", ("server",)) | _quantities(supervisor, "supervisor", ("supervisor",))
    quantities |= _quantities(logs, "logs", ("logs",))
    grace = served.get("graceful_timeout", GRACEFUL_TIMEOUT)
    quantities["server.graceful_timeout"] = _time(grace, (HYPERCORN, "graceful_timeout"), "graceful_timeout" in served)
    for key in ("ssl_handshake_timeout", "startup_timeout"):
        if key in served:
            quantities[f"http.{key}"] = _time(served[key], (HYPERCORN, key), True)
    if (streams := served.get("h2_max_concurrent_streams")) is not None:
        quantities["http2.streams"] = Quantity(streams, f"{streams}", (HYPERCORN, "h2_max_concurrent_streams"), True)
    if (limit := server.memory_limit) is not None:
        whole = (route.max_body for route in config.routes if route.proxy is None)
        largest = max(whole, default=server.max_body)
        quantities["uploads"] = _size(server.max_uploads * min(largest, server.max_body))
        quantities["memory.spent"] = _size(int(limit * _SPENT))
    if logs.keep_days is not None:
        quantities["logs.keep_days"] = quantities["logs.keep_days"]._replace(value=logs.keep_days * _DAY)
        quantities["logs.keep_days"] = quantities["logs.keep_days"]._replace(shown=f"{logs.keep_days:g} days")
        if logs.rotate_every is not None:
            quantities["logs.span"] = _time(logs.keep * logs.rotate_every)
    if logs.compress != "none":
        quantities.pop("logs.keep_bytes", None)  # The size of a compressed file is unknown.
    if config.routes and not any(route.proxy for route in config.routes):
        quantities["longest"] = _time(max(route.deadline for route in config.routes))
        for name, stream in (("access", logs.access), ("calls", logs.calls)):
            quantities[f"slow.{name}"] = _quantities(stream, "stream", ("logs", name))["stream.slow"]
    return quantities


def _upstream(name: str, upstream: Upstream) -> Quantities:
    at: KeyPath = ("upstreams", name)
    quantities = _quantities(upstream, "upstream", at)
    count = len(upstream.urls)
    if (
        not isinstance(upstream.ejection, bool)
        and count > 1
        and not any(r.url.startswith("dns+") for r in upstream.replicas)
    ):
        quantities["one_replica"] = Quantity(1 / count, f"1 of {count}", at, False)
        quantities |= _quantities(upstream.ejection, "ejection", (*at, "ejection"))
    return quantities


def _call(deadline: Quantity, call: Call, at: KeyPath, name: str, upstream: Upstream) -> Quantities:
    above: KeyPath = ("upstreams", name)
    quantities = _quantities(call, "call", at) | _upstream(name, upstream)
    quantities["route.deadline"] = deadline
    if call.each is None:
        quantities.pop("call.limit")
    own = quantities.get("call.timeout") or quantities.get("upstream.timeout")
    quantities["limit"] = deadline if own is None or deadline.value <= own.value else own
    if "call.timeout" in quantities:
        quantities.pop("upstream.timeout", None)
    retry, place = (call.retry, at) if call.retry is not None else (upstream.retry, above)
    if retry is not None:
        quantities |= _quantities(retry, "retry", (*place, "retry"))
        quantities["retry.pauses"] = _time(_pauses(retry), (*place, "retry"), True)
    hedge, place = (call.hedge, at) if call.hedge is not None else (upstream.hedge, above)
    if hedge is not None and not isinstance(hedge.after, str):
        quantities["hedge.last"] = _time(_last(hedge), (*place, "hedge", "after"), True)
    return quantities


def _pauses(retry: Retry) -> float:
    """Return the longest total time of all waits between attempts, in seconds."""
    return sum(min(retry.max_backoff, retry.backoff * 2.0**made) for made in range(retry.attempts - 1))


def _last(hedge: Hedge) -> float:
    """Return the seconds from the start of a call to its last hedge."""
    return float(hedge.after) * hedge.max


def _fan_outs(route: Route, at: KeyPath) -> dict[str, Quantity]:
    """Return the most calls that one request makes at once, by upstream."""
    counts: dict[str, int] = {}
    for call in route.calls.values():
        for upstream in call.upstreams if call.respond is None else ():
            counts[upstream] = counts.get(upstream, 0) + (call.limit if call.each is not None else 1)
    return {name: Quantity(count, f"{count}", (*at, "calls"), False) for name, count in counts.items()}


_AGE = re.compile(r"\b(?:max-age|s-maxage|stale-while-revalidate|stale-if-error)\b")
_WORDS = re.compile(r"[a-z-]+")


def _cache_ages(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield a warning for each Cache-Control with a directive that makes another one void (RFC 9111 section 5.2.2)."""
    for index, route in enumerate(config.routes):
        text = route.answer.cache_control.lower()
        words = set(_WORDS.findall(text))
        path: KeyPath = ("routes", index, "answer", "cache_control")
        if "no-store" in words and (age := _AGE.search(text)):
            yield path, f"has no-store and {age[0]}: a response that is not stored has no age"
        if "private" in words and words & {"s-maxage", "public"}:
            other = "s-maxage" if "s-maxage" in words else "public"
            yield path, f"has private and {other}: private forbids shared caches, so {other} has no effect"


# Quantities.


def _quantities(section: Section, name: str, at: KeyPath) -> Quantities:
    """Return the numbers of a section as quantities, by ``name.key``."""
    quantities: Quantities = {}
    for key, attribute in keys_of(type(section)).items():
        value = getattr(section, attribute)
        if isinstance(value, int | float) and not isinstance(value, bool):
            show: Any = FORMATS.get(unit_of(type(section), attribute), "{:g}".format)
            quantities[f"{name}.{key}"] = Quantity(
                value, show(value), (*at, key), attribute in section.model_fields_set
            )
    return quantities


def _time(seconds: float, path: KeyPath = (), given: bool = False) -> Quantity:
    return Quantity(seconds, format_duration(seconds), path, given)


def _size(count: int) -> Quantity:
    return Quantity(count, format_size(count), (), False)
