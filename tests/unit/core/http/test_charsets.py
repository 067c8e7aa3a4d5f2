"""Charsets: the parameter of Content-Type, and that a peer cannot choose an arbitrary codec."""

from __future__ import annotations

import ast
from pathlib import Path

import httpx
import pytest

import umbel
from tests.support.source.adversarial import check_linear, texts_of_atoms
from umbel.core.http.charsets import charset_of
from umbel.core.httpx_calls.httpx_messages import CompleteResponse, UpstreamResponse


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/plain", None),
        ("text/plain; charset=utf-8", "utf-8"),
        ("text/plain;charset=UTF-8", "UTF-8"),
        ('text/plain; format=flowed; Charset="iso-8859-1"; x=y', "iso-8859-1"),
        ("text/plain; charset='utf-8'", "utf-8"),
        ("text/plain; charset=utf-8, text/plain", "utf-8"),
        ("text/plain; charset=", None),
        ("text/plain; charset = koi8-r", "koi8-r"),
        ("text/plain; xcharset=koi8-r", None),
        ("text/plain; charset=" + "a" * 41, "a" * 41),
        ("text/plain; charset=a\u00fcb", "a\u00fcb"),
    ],
)
def test_the_charset_parameter_of_a_content_type_is_found(content_type: str, charset: str | None) -> None:
    assert charset_of(content_type) == charset


def test_a_content_type_is_read_in_linear_time() -> None:
    atoms = (";", "charset", "=", " ", '"', "; charset=", "a", "\\")
    check_linear(charset_of, texts_of_atoms(atoms, ("", "; charset", "; charset=")), binary=False)


@pytest.mark.parametrize("charset", ["punycode", "idna", "undefined", "unicode_escape", "rot13", "utf-7", "no-such"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_text_of_a_response_is_never_decoded_by_an_unlisted_codec(charset: str, whole: bool) -> None:
    content_type = f"text/plain; charset={charset}"
    if whole:
        fields = [(b"Content-Type", b"content-type", content_type.encode())]
        response: httpx.Response = CompleteResponse(200, fields, b"a-\xc3\xa9", {}, 0.0)
    else:
        response = UpstreamResponse(200, headers={"content-type": content_type}, content=b"a-\xc3\xa9")
    assert response.encoding == "utf-8"
    assert response.text == "a-\u00e9"


def test_the_text_of_a_response_is_decoded_by_a_listed_charset() -> None:
    response = UpstreamResponse(200, headers={"content-type": "text/plain; charset=ISO-8859-1"}, content=b"\xe9")
    assert (response.encoding, response.text) == ("iso-8859-1", "\u00e9")
    assert UpstreamResponse(200, content=b"\xc3\xa9").text == "\u00e9"


def test_only_one_module_chooses_a_codec_by_a_variable() -> None:
    found = []
    for path in Path(umbel.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = node.args[:1] + [keyword.value for keyword in node.keywords if keyword.arg == "encoding"]
                if node.func.attr in ("decode", "lookup", "getdecoder", "getincrementaldecoder") and any(
                    isinstance(name, ast.Name | ast.BoolOp | ast.IfExp) for name in named
                ):
                    found.append(f"{path.name}: {ast.unparse(node)}")
    assert [each for each in found if "codec" in each] == ["decode.py: body.decode(codec)"]
    # The others are decoders of msgspec and HPACK, whose ``decode`` takes data and no codec.
    assert all(
        "_master_decoder.decode(" in each
        or "_worker_decoder.decode(" in each
        or "json.decode(" in each
        or each.startswith("request_head.py: super().decode(data, raw")
        for each in found
        if "codec" not in each
    )
