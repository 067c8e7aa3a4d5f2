"""The route table finds the route of the nearest host that has the path and the method, as the rules say it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.config.schema.sections import Config
from umbel.core.networks import Networks
from umbel.gateway.app import Umbel
from umbel.gateway.request.client_origin import origin_of

NAMES = st.sampled_from(["a", "b.a", "c.b.a", "x.a", "10.0.0.1", "[::1]"])
PORTS = st.sampled_from(["", ":80", ":8000"])
PATTERNS = st.one_of(
    st.none(),
    st.builds(str.__add__, NAMES, PORTS),
    st.builds(lambda name, port: f"*.{name}{port}", st.sampled_from(["a", "b.a"]), PORTS),
)
METHODS = st.sampled_from(["GET", "POST"])
ROUTES = st.lists(st.tuples(PATTERNS, st.sampled_from(["/p", "/<x>"]), METHODS), min_size=1, max_size=8, unique=True)
HOSTS = st.builds(lambda name, dot, port: name.upper() + dot + port, NAMES, st.sampled_from(["", "."]), PORTS)
Route = tuple[str | None, str, str]


def rank(pattern: str | None, host: str) -> int | None:
    """How near a pattern is to a host, the nearest first; None: it does not fit."""
    bracket = host.rfind("]") + 1
    name, _, port = host.lower()[bracket:].partition(":")
    name = host.lower()[:bracket] + name.removesuffix(".")
    fits = {f"{name}:{port}": 0, name: 1}
    if "." in name and "[" not in name:
        rest = name.split(".", 1)[1]
        fits |= {f"*.{rest}:{port}": 2, f"*.{rest}": 3}
    return 4 if pattern is None else fits.get(pattern)


def expected(routes: list[Route], host: str, method: str) -> str | None:
    """The name of the route for ``/p``: by host, then by the specificity of the path."""
    fitting = [
        (near, path != "/p", number)
        for number, (pattern, path, of) in enumerate(routes)
        if of == method and (near := rank(pattern, host)) is not None
    ]
    return f"umbel-route-{min(fitting)[2]}" if fitting else None


@settings(max_examples=100, deadline=None)
@given(ROUTES, st.lists(st.tuples(HOSTS, METHODS), min_size=1, max_size=6))
def test_the_route_of_the_nearest_host_is_found(routes: list[Route], requests: list[tuple[str, str]]) -> None:
    config = Config.model_validate(
        {
            "upstreams": {"up": {"urls": ["http://127.0.0.1:1"]}},
            "routes": [
                {"path": path, "methods": [method], "calls": {"c": {"upstream": "up", "path": "/"}}}
                | ({} if pattern is None else {"host": pattern})
                for pattern, path, method in routes
            ],
        }
    )
    app = Umbel(__name__, config, static_folder=None)
    app.open_routes()
    for host, method in [*requests, *requests]:  # The second time by the cached match.
        host = host.replace("].", "]")
        origin = origin_of("127.0.0.1", [(b"host", host.encode())], Networks([]))
        found = app.route_table.find(method, b"/p", origin)
        assert (found and found.rule.endpoint) == expected(routes, host, method), (host, method)
