"""The route table matches the same requests as werkzeug, with the same values of the variables."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import HTTPException, NotFound

from umbel.config.schema.sections import Config
from umbel.core.errors import RequestError
from umbel.gateway.app import Umbel
from umbel.gateway.request.paths import check_path, merged_path

METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT")
WORDS = st.sampled_from(
    ["a", "b", "ab", "1", "7.5", "é", "a b", "x%y", "", ".", "12345678-1234-5678-1234-567812345678"]
)
PARTS = st.sampled_from(["a", "b", "<x>", "<int:x>", "<float:x>", "<uuid:x>", "<any(a,b):x>", "<string(length=2):x>"])
RULES = st.builds(
    lambda parts, end: (
        "/" + "/".join(part.replace(":x>", f":x{n}>").replace("<x>", f"<x{n}>") for n, part in enumerate(parts)) + end
    ),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "/", "/<path:rest>"]),
)
PATHS = st.builds(
    lambda lead, words, end: lead + "/".join(words) + end,
    st.sampled_from(["/", "//"]),
    st.lists(WORDS, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)


def application(rules: list[tuple[str, list[str]]]) -> Umbel:
    routes = [
        {"path": rule, "methods": methods, "calls": {"part": {"upstream": "up", "path": "/"}}}
        for rule, methods in rules
    ]
    config: dict[str, Any] = {"upstreams": {"up": {"urls": ["http://127.0.0.1:1"]}}, "routes": routes}
    app = Umbel(__name__, Config.model_validate(config), static_folder=None)

    @app.get("/a/<word>")
    async def plain(word: str) -> str:
        return word

    app.open_routes()
    return app


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(RULES, st.lists(st.sampled_from(["GET", "POST", "DELETE"]), min_size=1, max_size=2, unique=True)),
        min_size=1,
        max_size=4,
        unique_by=lambda rule: rule[0],
    ),
    st.lists(st.tuples(st.sampled_from(METHODS), PATHS), min_size=1, max_size=12),
)
def test_the_route_table_finds_what_werkzeug_matches(
    rules: list[tuple[str, list[str]]], requests: list[tuple[str, str]]
) -> None:
    app = application(rules)
    adapter = app.url_map.bind("gateway.test")
    for method, path in [*requests, *requests]:
        raw = quote(path).encode()
        expected: tuple[str, Any, str] | None = None
        try:
            check_path(raw)
            if merged_path(raw) is not None:
                raise NotFound  # A path with repeated slashes is redirected; no route answers it.
            rule, values = adapter.match(path, method, return_rule=True)
        except (HTTPException, RequestError):
            pass
        else:
            if rule.endpoint != "plain" and method != "OPTIONS":
                expected = (rule.rule, values, path)
        found = app.route_table.find(method, raw)
        assert (found and (found.route.rule, found.path, found.decoded)) == expected
