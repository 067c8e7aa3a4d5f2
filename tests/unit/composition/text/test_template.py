"""Target templates: the allowed forms of RFC 6570, and the encoding of values."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
import uritemplate
from hypothesis import given
from hypothesis import strategies as st

from umbel.composition.text.template import MAX_VALUE, BadValueError, Variable, compile_target, query_pairs


def variable(name: str) -> Variable:
    return Variable(name, None, tuple(name.split(".")), True)


def expand(text: str, **values: object) -> str:
    path, query = compile_target(text, variable).expand({}, values)
    return f"{path}?{'&'.join(query)}" if query else path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", 'must begin with one "/"'),
        ("//x", 'must begin with one "/"'),
        ("/{a b}", "not a name"),
        ("/{}", "not a name"),
        ("/{id", "an unpaired brace"),
        ("/id}", "an unpaired brace"),
        ("/{+a}", "operator + is not allowed"),
        ("/{#a}", "operator # is not allowed"),
        ("/{/a}", "operator / is not allowed"),
        ("/{?a*}", "explode"),
        ("/{a:3}", "prefixes"),
        ("/{a,b}", "takes one name; write one for each name"),
        ("/x{?a}{?b}", "has begun already"),
        ("/x?a=1{?b}", "has begun already"),
        ("/x{?a}?b=1", 'write "&b=1" for "?b=1"'),
        ("/x{?a}b=1", 'write "&b=1" for "b=1"'),
        ("/x?b{&a}c", 'write "&c" for "c"'),
        ("/x{&a}", "begin the query with {?…}"),
        ("/x?a={b}", "an entry of params"),
        ("/x y", "percent-encoded"),
        ("/x#y", "percent-encoded"),
        ("/é", "percent-encoded"),
        ("/../x", "must not have a segment"),
        ("/a/%2e%2E/x", "must not have a segment"),
        ("/.", "must not have a segment"),
    ],
)
def test_an_invalid_template_is_refused_at_load(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace("?", r"\?").replace("+", r"\+").replace("{", r"\{")):
        compile_target(text, variable)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("/users/{id}", {"id": 42}, "/users/42"),
        ("/users/{id}", {"id": "a b/ü"}, "/users/a%20b%2F%C3%BC"),
        ("/x{?a,b}", {"a": True, "b": 1.5}, "/x?a=true&b=1.5"),
        ("/x{?a,b}", {"b": "c&d"}, "/x?b=c%26d"),
        ("/x{?a}", {}, "/x"),
        ("/x?a=1{&b}", {"b": 2}, "/x?a=1&b=2"),
        ("/x{?a}{&b}", {"b": 2}, "/x?b=2"),
        ("/x{?a}&b=1?2{&c}", {"a": 1, "c": 3}, "/x?a=1&b=1?2&c=3"),
        ("/x{?a}", {"a": [1, "b"]}, "/x?a=1,b"),
        ("/x{?a}", {"a": ""}, "/x?a="),
        ("/{a}-{b}", {"a": 1, "b": 2}, "/1-2"),
    ],
)
def test_a_template_is_expanded_to_path_and_query(text: str, values: dict[str, object], expected: str) -> None:
    assert expand(text, **values) == expected


@given(
    st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])) | st.text(min_size=1, alphabet="aZ09-._~/")
)
def test_any_text_stays_one_segment_that_decodes_to_itself(value: str) -> None:
    if value in (".", ".."):
        return
    path, _ = compile_target("/a/{x}/b", variable).expand({}, {"x": value})
    assert path.count("/") == 3
    assert not set(path) & set("?# ")
    assert unquote(path.split("/")[2]) == value
    assert path == uritemplate.expand("/a/{x}/b", x=value), "as the reference implementation has it"


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.text(alphabet=st.characters(exclude_categories=["Cs"]))))
def test_query_forms_agree_with_the_reference_implementation(values: dict[str, str]) -> None:
    assert expand("/x{?a,b}", **values) == uritemplate.expand("/x{?a,b}", **values)


@pytest.mark.parametrize("value", [None, "", ".", "..", [1], {"a": 1}, "\ud800", "x" * (MAX_VALUE + 1)])
def test_a_value_that_cannot_be_a_segment_is_refused(value: object) -> None:
    with pytest.raises(BadValueError):
        expand("/{x}", x=value)


def test_a_segment_may_have_as_many_characters_as_any_value() -> None:
    assert expand("/{x}", x="x" * MAX_VALUE) == f"/{'x' * MAX_VALUE}"


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], [{"a": 1}]])
def test_a_value_that_cannot_be_a_query_value_is_refused(value: object) -> None:
    with pytest.raises(BadValueError):
        expand("/{?x}", x=value)


def test_a_list_too_long_for_a_target_is_refused_early() -> None:
    with pytest.raises(BadValueError, match="more than 16384 bytes"):
        query_pairs("a", ["x"] * 200_000, client_parameter="the query")
    assert len(query_pairs("a", [None] * 200_000 + ["x"] * 8000, client_parameter="the query")) == 8000
