"""Compiler of the ``proxy`` of a route."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from ...config.schema.access.credential_names import CredentialNames
from ...config.schema.proxy import FieldRules, Proxy, WebSocketRules
from ...config.schema.sections import KeyPath, Upstream
from ...core.http.hop_by_hop import is_hop_by_hop
from ...core.web_origins import WebOrigins
from ...policy.split import Split
from ..plan.part_compiler import PartCompiler, with_key_paths
from ..plan.scope import RouteNames, Scope
from ..request.never_sent import why_never_sent
from ..request.request_template import Param
from ..request.upstream_choice import UpstreamChoice
from ..text.template import TargetTemplate, Variable, compile_target
from .field_changes import FieldChanges
from .proxy_plan import Destination, ProxyPlan, WebSocketPlan
from .response_rewrite import Base, CookieRewrite

PATH_VARIABLE = re.compile(r"<path(?:\([^<>]*\))?:([^<>]+)>")
"""A variable of a route's path whose value may have slashes. Group: its name."""
_OF_HANDSHAKE = frozenset({"sec-websocket-accept", "sec-websocket-key", "sec-websocket-version"})
_OF_CONTENT = frozenset({"content-encoding", "content-range", "date", "trailer"})
"""Fields of a response without which its content or its time would mean something else."""


class ProxyCompiler:
    """Compiler of the ``proxy`` of one route. Mistakes become ``problems`` of ``parts``."""

    def __init__(self, parts: PartCompiler, names: RouteNames, proxy: Proxy) -> None:
        self._parts = parts
        self._names = names
        self._proxy = proxy
        self._upstreams = parts.config.upstreams
        self._scope = Scope(names)

    def compile(self, chosen_by: Collection[str], credentials: CredentialNames) -> ProxyPlan | None:
        """Compile the proxy; None: it is invalid.

        Args:
            chosen_by: the names of the request fields by which a request came to this route.
            credentials: the fields and cookies that no upstream gets.
        """
        before = len(self._parts.problems)
        self._check_upstreams()
        template = self._template()
        mirrors = () if self._proxy.mirror is None else (self._proxy.mirror.upstream,)
        withheld = frozenset(name.encode("ascii") for name in credentials.fields)
        destinations = {name: self._destination(name, withheld) for name in (*self._proxy.destinations, *mirrors)}
        request = self._changes("request_headers", self._proxy.request_headers)
        response = self._changes("response_headers", self._proxy.response_headers)
        key = self._parts.split_key(("proxy", "split_key"), self._proxy.split_key, self._scope)
        choice = UpstreamChoice(Split(self._proxy.upstream, self._proxy.split), key) if self._proxy.split else None
        if self._names.uses_body:
            self._parts.problem(("proxy",), "a template of a proxy route cannot read the body, which is not decoded")
        if len(self._parts.problems) > before:
            return None
        vary = dict.fromkeys(name.replace("_", "-") for name in self._names.headers)
        if self._names.cookies:
            vary["cookie"] = None
        return ProxyPlan(
            self._proxy,
            destinations,
            template,
            _ends_with_rest(self._parts.route.path),
            request,
            response,
            CookieRewrite.of(self._proxy.rewrite.cookie_domain, self._proxy.rewrite.cookie_path),
            self._websocket(),
            tuple(vary | dict.fromkeys(chosen_by)),
            key is not None or self._reads_request(destinations, request, response),
            choice,
            self._names.uses_client or self._names.has_auth,
            frozenset(name.encode("ascii") for name in credentials.cookies),
            self._names.has_auth and "authorization" in chosen_by,
        )

    def _check_upstreams(self) -> None:
        proxy = self._proxy
        named: list[tuple[KeyPath, str]] = [(("upstream",), proxy.upstream)]
        named += [(("fallback", place), name) for place, name in enumerate(proxy.fallback)]
        named += [(("split", name), name) for name in proxy.split]
        if proxy.mirror is not None:
            named.append((("mirror", "upstream"), proxy.mirror.upstream))
        for at, name in named:
            if name not in self._upstreams:
                near = difflib.get_close_matches(name, self._upstreams, n=1)
                hint = f'; did you mean "{near[0]}"?' if near else "; add [upstreams." + name + "]"
                self._parts.problem(("proxy", *at), f'there is no upstream "{name}"{hint}')

    def _template(self) -> TargetTemplate | None:
        text = self._proxy.path
        if text is None:
            return None
        keeps_slashes = PATH_VARIABLE.findall(self._parts.route.path)
        template = self._parts.collect(
            ("proxy", "path"),
            lambda: self._scope.resolved(lambda resolve: compile_target(text, resolve, keeps_slashes)),
        )
        for variable in template.variables if template is not None else ():
            if variable.root not in ("path", None):
                self._parts.problem(
                    ("proxy", "path"),
                    f'"{variable.name}" is no parameter of the path; the client\'s query is passed on as it is',
                )
            elif isinstance(variable, Variable) and variable.name in keeps_slashes and not variable.keeps_slashes:
                self._parts.problem(
                    ("proxy", "path"), f'"{variable.name}" may have slashes; write {{+{variable.name}}} to keep them'
                )
        return template

    def _destination(self, name: str, withheld: frozenset[bytes]) -> Destination:
        upstream = self._upstreams.get(name)
        if upstream is None:
            return Destination()
        at: KeyPath = ("upstreams", name)
        header = upstream.deadline_header
        return Destination(
            self._parts.request_fields((*at, "headers"), upstream.headers, self._scope),
            tuple(self._params((*at, "params"), upstream)),
            upstream.forwarded,
            header.encode("ascii") if header else None,
            tuple(dict.fromkeys(_bases(upstream))),
            withheld,
        )

    def _params(self, at: KeyPath, upstream: Upstream) -> Iterator[Param]:
        for name, (where, source) in with_key_paths(at, upstream.params):
            if (param := self._parts.param(name, source, where, self._scope)) is not None:
                yield param

    def _changes(self, key: str, rules: FieldRules) -> FieldChanges:
        at: KeyPath = (*self._parts.at, "proxy", key)
        named: list[tuple[KeyPath, str]] = [(("set", name), name) for name in rules.set_]
        named += [(("add", name), name) for name in rules.add]
        named += [(("remove", place), name) for place, name in enumerate(rules.remove)]
        for where, name in named:
            if reason := self._why_not_changed(key, name):
                self._parts.problem((*at, *where), reason, absolute=True)
        return FieldChanges(
            frozenset(name.encode("ascii") for name in (*rules.remove, *rules.set_)),
            self._parts.request_fields((*at, "set"), rules.set_, self._scope),
            self._parts.request_fields((*at, "add"), rules.add, self._scope),
        )

    def _why_not_changed(self, key: str, name: str) -> str | None:
        """The reason why a field cannot be changed by ``request_headers`` or ``response_headers``; None: it can."""
        if name in _OF_HANDSHAKE:
            return f'"{name}" belongs to the handshake of a WebSocket; remove it'
        if key == "response_headers":
            if is_hop_by_hop(name.encode("ascii")):
                return f'"{name}" belongs to one connection and is never forwarded; remove it'
            return f'"{name}" belongs to the content of the response; remove it' if name in _OF_CONTENT else None
        if name == "accept-encoding":  # Umbel writes it into calls only.
            return None
        for destination in filter(None, map(self._upstreams.get, self._proxy.destinations)):
            if reason := why_never_sent(name, destination):
                return reason
        return None

    def _websocket(self) -> WebSocketPlan | None:
        rules = self._proxy.websocket
        if isinstance(rules, WebSocketRules):
            return WebSocketPlan(WebOrigins(rules.origins))
        return WebSocketPlan(None) if rules else None

    @staticmethod
    def _reads_request(destinations: dict[str, Destination], *changes: FieldChanges) -> bool:
        fields = [field for each in destinations.values() for field in each.headers]
        fields += [field for each in changes for field in (*each.set, *each.add)]
        params = any(param.expression.names for each in destinations.values() for param in each.params)
        return params or any(field.fixed is None for field in fields)


def _ends_with_rest(path: str) -> bool:
    """Whether a route's path ends with ``/<path:name>``."""
    _, mark, variable = path.rpartition("/<")
    return bool(mark) and PATH_VARIABLE.fullmatch(f"<{variable}") is not None


def _bases(upstream: Upstream) -> Iterator[Base]:
    """Yield the names of an upstream: of each replica the base URL, and the same with the ``host`` of the upstream."""
    for replica in upstream.replicas:
        url = replica.url.removeprefix("dns+")
        parts = urlsplit("http://localhost" if url.startswith("unix:") else url)
        yield Base.of(parts.scheme, parts.netloc, parts.path)
        if upstream.host is not None:
            yield Base.of(parts.scheme, upstream.host, parts.path)
