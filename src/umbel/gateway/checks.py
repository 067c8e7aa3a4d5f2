"""Checks of a configuration beside its schema.

A configuration that fails one of ``CHECKS`` cannot be served. ``WARNINGS`` are reported by ``umbel check`` for a
configuration that can be served. The checks open no connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any

from ..auth import checks as auth_checks
from ..composition.plan import compiler, warnings
from ..config.loading import contradictions
from ..config.loading.load import Check
from ..core.http.compressors import how_to_install, is_available
from ..core.http.host import split_host
from ..core.networks import UNIX_PEER, parse_network
from ..core.regular_file import NOT_WRITABLE_REMEDY, why_not_writable
from ..limits import checks as limits_checks
from ..logs.recorder import STREAMS, path_of
from ..upstream import from_config
from .browsers.cors import FIELD_NAMES
from .operation import tracing

if TYPE_CHECKING:
    from ..config.schema.sections import Config, KeyPath

AnyNetwork = IPv4Network | IPv6Network

_LOG_FILE_KEYS = ("rotate_size", "rotate_every", "keep", "keep_bytes", "keep_days", "compress", "fsync", "ring")
"""Keys of ``[logs]`` that apply to files only."""


def _warn_of_logs(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Warn of log file keys without a log file, and of log files that the current user could not write."""
    logs = config.logs
    files = [path for name in STREAMS if (path := path_of(logs, name)) is not None]
    if not files:
        for key in _LOG_FILE_KEYS:
            if key in logs.model_fields_set:
                yield ("logs", key), "has no effect: it applies to files, and every stream goes to stdout"
    for reason in dict.fromkeys(filter(None, map(why_not_writable, files))):
        yield ("logs", "dir"), f"the records could not be written: {reason}; {NOT_WRITABLE_REMEDY}"


def _warn_of_networks(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Warn of an allowed network that is denied as a whole, and of trusted proxies that may make no requests."""
    server = config.server
    allowed, denied, trusted = (
        [(place, name, None if name == UNIX_PEER else parse_network(name)) for place, name in enumerate(names)]
        for names in (server.allow_networks, server.deny_networks, server.trusted_proxies)
    )
    for key, networks in (("allow_networks", allowed), ("trusted_proxies", trusted)):
        for place, name, network in networks:
            if denying := next((other for _, other, wider in denied if _is_within(network, wider)), None):
                yield ("server", key, place), f"has no effect: {name} is in {denying} of deny_networks"
    for place, name, network in trusted:
        if allowed and not any(_is_within(network, other) or _is_within(other, network) for _, _, other in allowed):
            yield ("server", "trusted_proxies", place), f"has no effect: {name} is not in allow_networks"


def _warn_of_hosts(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Warn of routes whose host the server refuses with 421, because it is not in ``hosts``."""
    served = {split_host(host.lower())[0] for host in config.server.hosts}
    for index, route in enumerate(config.routes):
        if route.host is None or not served:
            continue
        name = split_host(route.host)[0]
        of_wildcard = name.startswith("*.") and any(host.partition(".")[2] == name[2:] for host in served)
        if name not in served and not of_wildcard:
            yield ("routes", index, "host"), f"has no effect: {route.host} is not in hosts of [server], so it gets 421"


def _is_within(one: AnyNetwork | None, other: AnyNetwork | None) -> bool:
    """Whether a network is a part of another one, or equal to it. None stands for the peers on Unix sockets."""
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.subnet_of(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.subnet_of(other)
    return one is None and other is None


def _warn_of_codings(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Warn of codings of the default that are left out, and of ``compress`` in a route without the section."""
    if config.compress is None:
        for index, route in enumerate(config.routes):
            if route.compress and "compress" in route.model_fields_set:
                yield ("routes", index, "compress"), "has no effect without the section [compress]"
    elif "algorithms" not in config.compress.model_fields_set:
        for coding in config.compress.algorithms:
            if not is_available(coding):
                yield ("compress",), f"{coding} is left out of algorithms: to use it, {how_to_install(coding)}"


def _warn_of_response_fields(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Warn of response fields of a route that CORS writes itself, or that ``[headers]`` removes or replaces."""
    headers = config.headers
    reasons = dict.fromkeys(headers.remove, "[headers] removes this field from every response")
    reasons |= dict.fromkeys(headers.set_, "set of [headers] replaces this field in every response")
    of_cors = {name.decode(): "[cors] writes this field; write cors = false to do without it" for name in FIELD_NAMES}
    for index, route in enumerate(config.routes):
        has_cors = route.cors is not False and (route.cors or config.cors) is not None
        here = reasons | of_cors if has_cors else reasons
        named: list[tuple[KeyPath, str]] = [(("headers", name), name) for name in route.answer.headers]
        for call, names in route.answer.forward_headers.items():
            named += [(("forward_headers", call, place), name) for place, name in enumerate(names)]
        for at, name in named:
            if name in here:
                yield ("routes", index, "answer", *at), f'"{name}" has no effect: {here[name]}'
        if route.proxy is not None:
            rules = route.proxy.response_headers
            for key, table in (("set", rules.set_), ("add", rules.add)):
                for name in table:
                    if name in here and name not in headers.set_:
                        path: KeyPath = ("routes", index, "proxy", "response_headers", key, name)
                        yield path, f"has no effect: {here[name]}"


def _check_cors_headers(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Find the fields of CORS rules that pages may send and that the server refuses for an underscore."""
    if config.server.underscore_headers == "keep":
        return
    tables: list[tuple[KeyPath, Any]] = [(("cors",), config.cors)]
    tables += [(("routes", index, "cors"), route.cors) for index, route in enumerate(config.routes)]
    for at, cors in tables:
        for place, name in enumerate(cors.headers if cors else ()):
            if "_" in name:
                reason = f'a request with "{name}" gets 400 for the underscore; remove it, or write underscore_headers'
                yield (*at, "headers", place), f'{reason} = "keep" in [server]'


CHECKS: tuple[Check, ...] = (
    compiler.check,
    from_config.check,
    auth_checks.check,
    limits_checks.check,
    tracing.check,
    _check_cors_headers,
)
WARNINGS: tuple[Check, ...] = (
    contradictions.check,
    warnings.warn,
    from_config.warn,
    auth_checks.warn,
    limits_checks.warn,
    tracing.warn,
    _warn_of_logs,
    _warn_of_networks,
    _warn_of_hosts,
    _warn_of_codings,
    _warn_of_response_fields,
)
"""Checks whose results are only reported."""
