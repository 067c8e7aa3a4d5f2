"""Syntax of HTTP messages: the characters of each class, and that only one module lists them."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

import umbel
from umbel.core.http import syntax

SRC = Path(umbel.__file__).parent
OCTETS = [bytes([octet]) for octet in range(256)]
# RFC 9110 section 5.6.2, and RFC 5234 appendix B.1.
TCHAR = {char.encode() for char in "!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters}
VCHAR = {bytes([octet]) for octet in range(0x21, 0x7F)}
OBS_TEXT = {bytes([octet]) for octet in range(0x80, 0x100)}


def octets(pattern: re.Pattern[bytes]) -> set[bytes]:
    """The octets that a pattern matches."""
    return {octet for octet in OCTETS if pattern.fullmatch(octet)}


def test_a_token_consists_of_the_octets_that_rfc_9110_lists() -> None:
    assert octets(syntax.TOKEN) == TCHAR
    assert {char.encode("latin-1") for char in map(chr, range(256)) if syntax.TOKEN_TEXT.fullmatch(char)} == TCHAR


def test_a_field_value_consists_of_visible_octets_whitespace_and_obs_text() -> None:
    assert octets(syntax.FIELD_VALUE) == VCHAR | OBS_TEXT | {b" ", b"\t"}
    assert octets(syntax.bytes_pattern(f"[{syntax.FIELD_VISIBLE_CHARS}]")) == VCHAR | OBS_TEXT


def test_a_target_consists_of_visible_ascii_without_number_sign() -> None:
    assert {octet for octet in OCTETS if syntax.ORIGIN_FORM.fullmatch(b"/" + octet)} == VCHAR - {b"#"}
    assert octets(syntax.NOT_OF_TARGET) == set(OCTETS) - (VCHAR - {b"#"})


def test_a_control_character_is_any_but_the_tab() -> None:
    found = {char for char in map(chr, range(256)) if syntax.CONTROL_TEXT.search(char)}
    assert found == {chr(octet) for octet in range(0x20)} - {"\t"} | {"\x7f"}


@pytest.mark.parametrize("pattern", [syntax.TOKEN, syntax.FIELD_VALUE, syntax.ORIGIN_FORM])
def test_a_pattern_does_not_match_a_line_end_after_its_text(pattern: re.Pattern[bytes]) -> None:
    assert pattern.fullmatch(b"/") is not None or pattern.fullmatch(b"x") is not None
    assert pattern.fullmatch(b"/\n") is None
    assert pattern.fullmatch(b"x\n") is None


@pytest.mark.parametrize("octet", OCTETS)
def test_a_head_holds_octets_of_field_values_and_complete_line_ends(octet: bytes) -> None:
    never = syntax.FIELD_VALUE.fullmatch(octet) is None
    assert (syntax.NEVER_IN_HEAD.search(b"x" + octet + b"x") is not None) == never
    assert syntax.NEVER_IN_HEAD.search(b"x\r\nx\r") is None


# Without the underscore, because a pattern for names may exclude it.
_SPECIALS = set("!#$%&*+.^`|~")


def alphabets_in(source: str) -> Iterator[str]:
    """The strings in a source text that list the characters of a token."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            value = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            yield from (word for word in value.split() if set(word) >= _SPECIALS)


def test_the_characters_of_tokens_are_listed_in_one_module_only() -> None:
    spelled = {path for path in SRC.rglob("*.py") if list(alphabets_in(path.read_text()))}
    assert spelled == {SRC / "core/http/syntax.py"}


@pytest.mark.parametrize(
    "source",
    [
        """_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")""",
        """x = frozenset("!#$%&'*+-.^`|~")""",
        """x = rf"{y}[!#$%&*+.^`|~]+\\r" """,
    ],
)
def test_a_list_of_token_characters_in_a_string_is_found(source: str) -> None:
    assert list(alphabets_in(source))


@pytest.mark.parametrize(
    ("value", "members"),
    [
        (b"", set()),
        (b" , ,\t", set()),
        (b"close", {b"close"}),
        (b"Keep-Alive ,\tUpgrade,upgrade", {b"keep-alive", b"upgrade"}),
        (b"x y,\xe9", {b"x y", b"\xe9"}),
    ],
)
def test_a_list_has_its_members_in_lower_case_without_empty_ones(value: bytes, members: set[bytes]) -> None:
    assert syntax.list_members(value) == members


def test_a_percent_sign_without_two_hex_digits_is_a_bad_escape() -> None:
    found = [match.start() for match in syntax.BAD_ESCAPE.finditer(b"%41%4g%%20%")]
    assert found == [3, 6, 10]
