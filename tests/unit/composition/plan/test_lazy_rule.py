"""Rules whose functions for building URLs are compiled only when a URL is asked for."""

from __future__ import annotations

import pytest
from werkzeug.routing import Map, Rule

from umbel import Umbel
from umbel.composition.plan.lazy_rule import LazyRule
from umbel.config.schema.sections import Config

ROUTE = {"path": "/items/<int:item_id>", "respond": {"text": "hello"}}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rules for which werkzeug compiles code, in order."""
    found: list[str] = []
    original = Rule._compile_builder

    def compile_builder(self: Rule, append_unknown: bool = True) -> object:
        found.append(self.rule)
        return original(self, append_unknown)

    monkeypatch.setattr(Rule, "_compile_builder", compile_builder)
    return found


def test_a_rule_is_compiled_when_its_url_is_built_and_only_once(compiled: list[str]) -> None:
    urls = Map([LazyRule("/items/<int:item_id>", endpoint="item"), LazyRule("/", endpoint="root")]).bind("host")
    assert urls.match("/items/7") == ("item", {"item_id": 7})
    assert compiled == []

    assert [urls.build("item", {"item_id": number, "page": "2"}) for number in (7, 8)] == [
        "/items/7?page=2",
        "/items/8?page=2",
    ]
    assert compiled == ["/items/<int:item_id>"]


def test_no_code_is_compiled_for_configured_routes(compiled: list[str]) -> None:
    app = Umbel(__name__, Config.model_validate({"routes": [ROUTE]}), static_folder=None)

    assert ROUTE["path"] not in compiled
    urls = app.url_map.bind("host")
    assert urls.build("umbel-route-0", {"item_id": 7}) == "/items/7"
    assert compiled.count("/items/<int:item_id>") == 1


async def test_url_for_builds_the_urls_of_an_application() -> None:
    app = Umbel(__name__, Config(), static_folder=None)

    @app.route("/orders/<number>")
    async def order(number: str) -> str:
        return number

    async with app.test_request_context("/"):
        assert app.url_for("order", number="a b") == "/orders/a%20b"


def test_a_variable_may_be_named_as_a_parameter_of_the_builder() -> None:
    urls = Map([LazyRule("/<self>/<rule>/<values>", endpoint="it")]).bind("host")
    assert urls.build("it", {"self": "a", "rule": "b", "values": "c"}) == "/a/b/c"


@pytest.mark.parametrize(
    ("path", "said"), [("/<x>/<x>", 'two variables are named "x"'), ("/<None>", '"None" is a constant of Python')]
)
def test_variables_that_no_function_can_have_are_refused_when_bound(path: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Map([LazyRule(path, endpoint="it")])
