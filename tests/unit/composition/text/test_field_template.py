"""Field templates: the encoding of values, and the values for which a field is left out."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import parse_options_header

from umbel.composition.text.field_template import MAX_FIELD, compile_field, set_client_texts
from umbel.composition.text.template import Variable
from umbel.core.model import Json


def variable(name: str) -> Variable:
    return Variable(name, None, tuple(name.split(".")), "")


def expand(field: str, text: str, *values: object) -> str | None:
    """Expand a template with the values ``{x}`` and ``{y}``, and decode the result as UTF-8."""
    value = compile_field(field, text, variable).expand({}, dict(zip("xy", values, strict=False)))
    return None if value is None else value.decode()


NAME = "r\u00e9sum\u00e9 \u6587.pdf"
EXTENDED = "UTF-8''r%C3%A9sum%C3%A9%20%E6%96%87.pdf"
FALLBACK = '"resume _.pdf"'


@pytest.mark.parametrize(
    ("field", "template", "value", "expected"),
    [
        ("x-a", "Bearer {x}", 1, "Bearer 1"),
        ("x-a", "{x}", "Jos\u00e9", "Jos\u00e9"),
        ("x-a", "a {x} b", "\u20ac \U0001f600", "a \u20ac \U0001f600 b"),
        ("x-a", "{x}", "a\tb", "a\tb"),
        ("x-a", " {x} ", " a ", "a"),
        ("x-a", "{x}", True, "true"),
        # Parameters and quoted strings of any field.
        ("x-a", "a={x}", "b c=d", "a=b c=d"),
        ("x-a", "a={x}; b=1", "c; b=2", 'a="c; b=2"; b=1'),
        ("x-a", "a={x},b=1", 'c"d\\e', 'a="c\\"d\\\\e",b=1'),
        ("x-a", "a={x}, b=1", " c ", 'a=" c ", b=1'),
        ("x-a", 'a="{x}"', 'c"; b="d\\', 'a="c\\"; b=\\"d\\\\"'),
        ("x-a", '"{x}"', 'c"d', '"c\\"d"'),
        ("x-a", 'a="1\\"{x}"', "c", 'a="1\\"c"'),
        ("x-a", 'a="\u0062\\\\", b="{x}"', "c", 'a="b\\\\", b="c"'),
        ("authorization", "Basic key={x}/y,v=1", "a+b/c==", "Basic key=a+b/c==/y,v=1"),
        ("content-type", "text/plain; charset={x}", "utf-8", "text/plain; charset=utf-8"),
        ("content-type", "text/plain; charset={x}", "a b", 'text/plain; charset="a b"'),
        # Content-Disposition (RFC 6266) and Link (RFC 8288).
        ("content-disposition", "attachment; filename={x}", "a.pdf", "attachment; filename=a.pdf"),
        ("content-disposition", "attachment; filename={x}", "a b.pdf", 'attachment; filename="a b.pdf"'),
        ("content-disposition", "attachment; filename={x}", "", 'attachment; filename=""'),
        ("content-disposition", 'attachment; filename="{x}"', "a.pdf", 'attachment; filename="a.pdf"'),
        ("content-disposition", "inline; filename={x}", NAME, f"inline; filename={FALLBACK}; filename*={EXTENDED}"),
        ("content-disposition", 'inline; filename="{x}"', NAME, f"inline; filename={FALLBACK}; filename*={EXTENDED}"),
        (
            "content-disposition",
            'inline; filename="a-{x}.txt"; size=1',
            "\u00e9",
            "inline; filename=\"a-e.txt\"; filename*=UTF-8''a-%C3%A9.txt; size=1",
        ),
        ("content-disposition", "inline; filename*=UTF-8''{x}", "\u00e9';x", "inline; filename*=UTF-8''%C3%A9%27%3Bx"),
        (
            "content-disposition",
            "inline; filename=\"{x}\"; filename*=UTF-8''{x}",
            "\u00e9",
            "inline; filename=\"e\"; filename*=UTF-8''%C3%A9",
        ),
        (
            "content-disposition",
            "a; filename={x}",
            "\u037e\u00e9\u2260",
            "a; filename=\"_e_\"; filename*=UTF-8''%CD%BE%C3%A9%E2%89%A0",
        ),
        ("link", '<{x}>; rel="next"', "/a b>;\u00e9", '</a%20b%3E;%C3%A9>; rel="next"'),
        ("link", '</a>; title="{x}"', "\u00e9", "</a>; title=\"e\"; title*=UTF-8''%C3%A9"),
        ("link", '</a>; rel="{x}"', "\u00e9", '</a>; rel="\u00e9"'),
        # URIs.
        ("location", "/files/{x}", "a/r\u00e9sum\u00e9 1.pdf?a=%20#b", "/files/a/r%C3%A9sum%C3%A9%201.pdf?a=%20#b"),
        ("location", "{x}", "https://h/\u00e9", "https://h/%C3%A9"),
        ("location", "/{x}", "/evil.test", "/%2Fevil.test"),
        ("location", "/{x}", "\\evil.test", "/%5Cevil.test"),
        ("Location", "/a/{x}", "/b", "/a//b"),
        ("refresh", "0;url=/{x}", "/evil.test", "0;url=/%2Fevil.test"),
        ("refresh", "0; URL = '/{x}'", "/evil.test", "0; URL = '/%2Fevil.test'"),
        ("refresh", "0,/{x}", "/evil.test", "0,/%2Fevil.test"),
        ("refresh", "5;url=/a/{x}", "b c", "5;url=/a/b%20c"),
        ("refresh", "{x};url=/a", 5, "5;url=/a"),
        ("location", "{x}", "../a", "../a"),
        ("location", "../{x}", "a", "../a"),
        ("location", "/a?b={x}", "../c", "/a?b=../c"),
        ("location", "/a/{x}", "..b/.c/d..", "/a/..b/.c/d.."),
        # Cookies and entity tags.
        ("cookie", "{x}", "a=1; b=2", "a=1; b=2"),
        ("cookie", "a={x}; b=1", "\u00e9,1", "a=\u00e9,1; b=1"),
        ("if-match", '"{x}"', "a\\b", '"a\\b"'),
    ],
)  # fmt: skip
def test_a_value_is_encoded_as_its_field_requires(field: str, template: str, value: object, expected: str) -> None:
    assert expand(field, template, value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(None, [1], {}, float("nan"), float("inf"), "x" * 9000, "\ud800"),
        *("a\r\nx-b: 1", "a\n", "\r", "\x00", "\x7f", "\x1b[0m", "\x85", "\x9f"),
    ],
)
@pytest.mark.parametrize(
    ("field", "template"),
    [
        ("x-a", "{x}"),
        ("x-a", 'a="{x}"'),
        ("x-a", "a={x}"),
        ("location", "/{x}"),
        ("content-disposition", "a; b={x}"),
        ("content-disposition", "a; b*=UTF-8''{x}"),
        ("cookie", "a={x}"),
    ],
)
def test_a_field_with_an_invalid_value_is_left_out(field: str, template: str, value: object) -> None:
    assert expand(field, template, value) is None


@pytest.mark.parametrize(
    ("field", "template", "value"),
    [
        ("cookie", "a={x}", "1; b=2"),
        ("cookie", 'a="{x}"', "1; b=2"),
        ("cookie", "a=1; {x}", "b=2; c=3"),
        ("if-none-match", '"{x}"', 'a", "b'),
        ("location", "/a/{x}", "../admin"),
        ("location", "/a/{x}", "b/%2e%2E?c"),
        ("location", "/a/{x}{x}", "."),
        ("refresh", "0;url='/a/{x}'", ".."),
        ("link", "</a/{x}>", "..\\b"),
        ("x-a", "{x}{x}{x}", "x" * 6000),
    ],
)
def test_a_field_is_left_out_if_it_has_no_escape_for_its_value(field: str, template: str, value: str) -> None:
    assert expand(field, template, value) is None


def test_a_field_longer_than_common_servers_accept_is_left_out() -> None:
    assert len(expand("x-a", "{x}{y}", "a" * 8192, "b" * 8192) or "") == MAX_FIELD
    assert expand("x-a", "{x}{y}.", "a" * 8192, "b" * 8192) is None


def of_identity(name: str) -> Variable:
    return variable(name)._replace(of_identity=True)


@pytest.mark.parametrize("value", [" ada", "ada ", "ada\t", " ", "\u00a0ada"])
@pytest.mark.parametrize(
    ("field", "template"),
    [("x-a", "{x}"), ("x-a", "a:{x}, b"), ("x-a", "Bearer {x}"), ("cookie", "a={x}"), ("cookie", "a=1; b={x}; c=2")],
)
def test_no_value_of_auth_loses_whitespace_that_tells_it_from_another(field: str, template: str, value: str) -> None:
    left_out: list[tuple[str, str]] = []
    compiled = compile_field(field, template, of_identity)
    assert compiled.expand({}, {"x": value}, lambda *what: left_out.append(what)) is None
    assert left_out == [(field, "{x} begins or ends with whitespace, which no field keeps")]
    assert compiled.expand({}, {"x": "a da"}) == template.replace("{x}", "a da").encode()


@pytest.mark.parametrize(
    ("field", "template", "sent"),
    [
        ("x-a", 'a="{x}"', b'a=" ada"'),
        ("x-a", "a={x}; b", b'a=" ada"; b'),
        ("if-match", '"{x}"', b'" ada"'),
        ("cookie", 'a="{x}"', b'a=" ada"'),
        ("location", "/a/{x}", b"/a/%20ada"),
        ("content-disposition", "inline; filename={x}", b'inline; filename=" ada"'),
    ],
)
def test_a_value_of_auth_keeps_its_whitespace_where_it_is_quoted(field: str, template: str, sent: bytes) -> None:
    assert compile_field(field, template, of_identity).expand({}, {"x": " ada"}) == sent


@given(value=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
@pytest.mark.parametrize("template", ['inline; filename="{x}"; size=1', "inline; filename={x}; size=1"])
def test_a_file_name_stays_within_its_parameter(template: str, value: str) -> None:
    field = expand("content-disposition", template, value)
    assert field is not None
    assert field.isascii()
    kind, parameters = parse_options_header(field)
    assert kind == "inline"
    assert set(parameters) == {"filename", "size"}
    assert parameters["size"] == "1"
    if not value.isascii():
        assert unquote(field.rpartition("''")[2].partition(";")[0]) == value
        assert parameters["filename"] == value


@given(values=st.tuples(st.text(), st.text()))
@pytest.mark.parametrize("template", ['a="{x}"; b="{y}"; c', "a={x}; b={y}; c", '"{x}" {y}', "{x}, a={y}"])
def test_no_value_ends_a_line(template: str, values: tuple[str, str]) -> None:
    field = compile_field("x-a", template, variable).expand({}, dict(zip("xy", values, strict=True)))
    assert field is None or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", field) is None


def test_query_forms_are_refused_in_a_header_template() -> None:
    with pytest.raises(ValueError, match="makes a query"):
        compile_field("x-a", "{?x}", variable)


@pytest.mark.parametrize(("text", "reason"), [('a="{x}', "no closing"), ("\u00e9", "ASCII"), ("a\nb", "ASCII")])
def test_a_template_that_can_never_make_a_valid_field_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_field("x-a", text, variable)


def test_variables_are_listed_in_order() -> None:
    compiled = compile_field("content-disposition", "{a}; b=c{d}e; f=\"{g}\"; h*=UTF-8''{i}; j={k}{l}", variable)
    assert [each.name for each in compiled.variables] == ["a", "d", "g", "i", "k", "l"]


@pytest.mark.parametrize(
    ("field", "template", "sent"),
    [
        ("x-a", "{x}", b"a\xe4"),
        ("x-a", "b={x}; c={y}", b"b=a\xe4; c=\xc3\xa4"),
        ("x-a", 'b="{x}{y}"', b'b="a\xe4\xc3\xa4"'),
        ("x-a", "{x}-{z}", b"a\xe4-\xc3\xbc"),
        ("cookie", "c={x}; d={y}", b"c=a\xe4; d=\xc3\xa4"),
        ("if-match", '"{x}"', b'"a\xe4"'),
        ("content-type", "a/b; c={x}", b'a/b; c="a\xe4"'),
        ("content-disposition", "inline; filename={x}", b"inline; filename=\"aa\"; filename*=UTF-8''a%C3%A4"),
        ("location", "/b/{x}", b"/b/a%C3%A4"),
    ],
)
def test_a_field_of_the_client_that_is_no_utf_8_keeps_its_bytes(field: str, template: str, sent: bytes) -> None:
    names = {"x": ("headers", "x"), "y": ("headers", "y"), "z": ("path", "x")}
    compiled = compile_field(field, template, lambda name: Variable(name, names[name][0], (names[name][1],), ""))
    context: dict[str, Json] = {"path": {"x": "\u00fc"}}
    set_client_texts(context, "headers", {"x": "a\xe4", "y": "\xc3\xa4", "none": None})
    set_client_texts(context, "cookies", {"x": "\xe4"})
    assert context["headers"] == {"x": "a\u00e4", "y": "\u00e4", "none": None}
    assert compiled.expand(context, {}) == sent


def test_a_field_of_the_client_that_ends_a_line_is_still_left_out() -> None:
    compiled = compile_field("x-a", "{x}", lambda name: Variable(name, "headers", (name,), ""))
    for value in ("\xe4\r\nx-b: 1", "\xe4\0", "\xe4\x85"):
        context: dict[str, Json] = {}
        set_client_texts(context, "headers", {"x": value})
        assert compiled.expand(context, {}) is None
