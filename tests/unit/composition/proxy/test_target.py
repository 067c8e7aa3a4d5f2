"""The target of a request that is passed on: templates, queries, and hostile paths."""

from __future__ import annotations

from typing import Any

import pytest

from umbel.core.errors import RequestError

from .plans import mistakes, plan

TEMPLATE: dict[str, Any] = {"path": "/v2/{+rest}"}


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/a/b?x=1&x=2",
        b"/a//b/?",
        b"/a%2fb%20c/@:;,'()!$&*+=~?q=%zz&&=&a+b",
        b'/%C3%A9?"<>|\\^`{}',
        b"/a/...;/.b/b.;x",
    ],
)
def test_without_a_template_path_and_query_stay_byte_for_byte(target: bytes) -> None:
    assert plan().target(target, {}) == target


@pytest.mark.parametrize(
    ("target", "rest", "sent"),
    [
        (b"/files/a/b", "a/b", b"/v2/a/b"),
        (b"/files/a/b/", "a/b/", b"/v2/a/b/"),
        (b"/files/a@b;v=1/c%20d/%C3%A9?x=%20&y", "a@b;v=1/c d/é", b"/v2/a@b;v=1/c%20d/%C3%A9?x=%20&y"),
        (b"/files/a?", "a", b"/v2/a"),
        (b"http://h/files/a?b", "a", b"/v2/a?b"),
        (b"/files/%41", "A", b"/v2/%41"),
    ],
)
def test_a_rest_at_the_end_of_the_path_is_sent_as_the_client_wrote_it(target: bytes, rest: str, sent: bytes) -> None:
    assert plan("/files/<path:rest>", **TEMPLATE).target(target, {"rest": rest}) == sent


@pytest.mark.parametrize(
    ("target", "values", "sent"),
    [
        (b"/a%20b/9/x/y/end", {"id": "a b", "n": 9, "rest": "x/y"}, b"/x/y/9/a%20b"),
        (b"/a@/9/x;y/end", {"id": "a@", "n": 9, "rest": "x;y"}, b"/x%3By/9/a%40"),
    ],
)
def test_a_value_at_another_place_is_encoded_anew(target: bytes, values: dict[str, Any], sent: bytes) -> None:
    assert plan("/<id>/<int:n>/<path:rest>/end", path="/{+rest}/{n}/{id}").target(target, values) == sent


def test_a_value_that_is_no_scalar_of_json_is_sent_as_its_text() -> None:
    class Version:
        def __str__(self) -> str:
            return "1/2"

    assert plan("/<id>", path="/v/{id}").target(b"/x", {"id": Version()}) == b"/v/1%2F2"


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("a//b", "empty or a dot segment"),
        ("/b", "empty or a dot segment"),
        ("..", "dot segment"),
        ("a/../b", "dot segment"),
        ("a/./b", "dot segment"),
    ],
)
def test_a_rest_with_an_empty_or_a_dot_segment_gets_400(rest: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as caught:
        plan("/files/<path:rest>", **TEMPLATE).target(b"/files/" + rest.encode(), {"rest": rest})
    assert caught.value.status == 400


@pytest.mark.parametrize("segment", [b"..;", b".;a=b", b"%2e%2E;x", b"..%3Bx", b".%2e%3b", b"..", b"%2e"])
@pytest.mark.parametrize("template", [{}, TEMPLATE])
def test_a_dot_segment_with_a_parameter_gets_400(segment: bytes, template: dict[str, Any]) -> None:
    for path in (b"/files/a/" + segment + b"/b", b"/files/" + segment):
        with pytest.raises(RequestError) as caught:
            plan("/files/<path:rest>", **template).target(path, {"rest": "x"})
        assert caught.value.status == 400


def test_a_value_that_is_not_the_end_of_the_path_is_never_taken_from_it() -> None:
    assert plan("/files/<path:rest>", **TEMPLATE).target(b"/other/c", {"rest": "a b"}) == b"/v2/a%20b"


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        (b"", b"/v?tenant=7&debug"),
        (b"?", b"/v?tenant=7&debug"),
        (b"?a=1&&b", b"/v?tenant=7&debug&a=1&b"),
        (b"?tenant=8&a=1&%74enant=9&tenant&t%65n%61nt=", b"/v?tenant=7&debug&a=1"),
        (b"?debug=1&Tenant=8&tenan%C3%A9t=%ff", b"/v?tenant=7&debug&Tenant=8&tenan%C3%A9t=%ff"),
    ],
)
def test_the_query_of_the_template_replaces_parameters_of_the_same_names(query: bytes, sent: bytes) -> None:
    assert plan("/<id>", path="/v?tenant=7&debug").target(b"/1" + query, {"id": "1"}) == sent


def test_the_params_of_the_upstream_replace_those_of_the_client() -> None:
    upstreams = {
        "keyed": {"urls": ["http://k"], "params": {"api key": "'s3&t'", "of": "path.id", "at": "headers.x_at"}}
    }
    found = plan("/<id>", route={"upstreams": upstreams}, upstream="keyed")
    assert found.reads_request
    sent = found.target(b"/a?api+key=mine&x=1&of", {"id": "a"}, {"path": {"id": "a"}, "headers": {"x_at": None}})
    assert sent == b"/a?api%20key=s3%26t&of=a&x=1"


def test_params_of_a_fallback_are_sent_to_that_upstream_only() -> None:
    upstreams = {"other": {"urls": ["http://o"], "params": {"key": "'1'"}}}
    found = plan(route={"upstreams": upstreams}, fallback=["other"])
    assert not found.reads_request
    assert found.target(b"/a?key=2", {}) == b"/a?key=2"
    assert found.target(b"/a?key=2", {}, upstream="other") == b"/a?key=1"


def test_a_value_that_fits_into_no_query_gets_400_with_the_name_of_the_parameter() -> None:
    upstreams = {"keyed": {"urls": ["http://k"], "params": {"of": "query.Limit"}}}
    found = plan("/<id>", route={"upstreams": upstreams, "query": ["Limit"]}, upstream="keyed")
    with pytest.raises(RequestError, match='The query parameter "Limit" is longer than') as caught:
        found.target(b"/a", {"id": "a"}, {"query": {"Limit": "x" * 10_000}})
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("path", "template", "said"),
    [
        ("/<id>", "/{other}", '"other" is an unknown name'),
        ("/<id>", "/{+id}", "{+id}: the operator + is not allowed"),
        ("/<path:rest>", "/{+other}", "{+other}: only a parameter <path:…> keeps its slashes; write {+rest}"),
        ("/<path:rest>", "/{rest}", '"rest" may have slashes; write {+rest} to keep them'),
        ("/<path:rest>", "//{+rest}", 'a path must begin with one "/"'),
        ("/<path:rest>", "/../{+rest}", 'a path must not have a segment "." or ".."'),
        ("/<path:rest>", "/a b", '" " is not allowed in a path; write it percent-encoded'),
        ("/<id>", "/{headers.x}", '"headers.x" is no parameter of the path'),
    ],
)
def test_a_template_that_cannot_be_used_is_a_mistake(path: str, template: str, said: str) -> None:
    ((at, reason),) = mistakes(path, path=template).items()
    assert at == "routes.0.proxy.path"
    assert reason.startswith(said)


def test_a_query_parameter_in_the_template_is_a_mistake() -> None:
    found = mistakes("/<id>", route={"query": ["page"]}, path="/v{?page}")
    assert "the client's query is passed on as it is" in found["routes.0.proxy.path"]


def test_a_long_path_takes_linear_time() -> None:
    long = "a/" * 100_000 + "b"
    found = plan("/files/<path:rest>", **TEMPLATE)
    assert found.target(b"/files/" + long.encode(), {"rest": long}) == b"/v2/" + long.encode()
    assert plan().target(b"/" + long.encode() + b"?" + b"a&" * 100_000, {}).endswith(b"a&")
