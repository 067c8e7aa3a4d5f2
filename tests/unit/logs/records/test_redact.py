"""Redaction of secrets in records: by name, by form, within texts and within nested values."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.source.adversarial import check_linear, texts_of_atoms
from umbel.core.diagnostics.exception_fields import STACK_CHARS_MAX, exception_fields
from umbel.core.diagnostics.redact import REDACTED, TEXT_CHARS_MAX, Redactor
from umbel.logs.records.encode import Encoder, finish
from umbel.logs.records.sanitize import NAME_CHARS_MAX, VALUES_MAX, sanitize

SECRET = "hunter2-s3cr3t"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"


def line(**fields: object) -> str:
    return finish(Encoder(Redactor(["x-tenant-*"]), service="test").fields("info", "e", fields), 1).decode()


class Shown:
    def __repr__(self) -> str:
        return f"Shown(password={SECRET!r})"


class Inner(msgspec.Struct):
    api_token: str


PLACES: dict[str, dict[str, Any]] = {
    "a name": {"password": SECRET},
    "a name in another case": {"Authorization": SECRET},
    "an attribute of OpenTelemetry": {"http.request.header.authorization": [SECRET]},
    "a name with underscores": {"x_api_key": SECRET},
    "a part of a name": {"github_access_token_v2": SECRET},
    "a signature of a URL": {"url": f"https://files.example/a?X-Amz-Date=1&X-Amz-Signature={SECRET}&x=1"},
    "a name of one's own": {"x-tenant-key": SECRET},
    "a mapping": {"headers": {"Cookie": SECRET, "accept": "*/*"}},
    "a mapping with bytes": {"headers": {b"set-cookie": SECRET.encode()}},
    "a mapping far within": {"a": [{"b": ({"client_secret": SECRET},)}]},
    "pairs": {"headers": [("Authorization", f"Basic {SECRET}"), ("accept", "*/*")]},
    "pairs of bytes": {"headers": [(b"x-api-key", SECRET.encode())]},
    "bytes": {"body": f'{{"password": "{SECRET}"}}'.encode()},
    "a bytearray": {"body": bytearray(f"token={SECRET}", "ascii")},
    "a JSON text": {"body": json.dumps({"user": "a", "password": SECRET})},
    "JSON in JSON": {"body": json.dumps({"inner": json.dumps({"password": f'"{SECRET}"'})})},
    "a compact JSON text": {"body": json.dumps({"secret": SECRET}, separators=(",", ":"))},
    "a form": {"body": f"user=a&password={SECRET}&x=1"},
    "a repr of headers": {"msg": repr([("Authorization", f"Basic {SECRET}")])},
    "a repr of raw headers": {"msg": repr([(b"cookie", f"a={SECRET}; b=c".encode())])},
    "a repr of a mapping": {"msg": repr({"password": SECRET})},
    "a header line": {"msg": f"sent Authorization: Basic {SECRET}\r\nAccept: */*"},
    "a cookie line": {"msg": f"Cookie: session={SECRET}; other={SECRET}"},
    "a URL's userinfo": {"url": f"postgres://user:{SECRET}@db/x"},
    "userinfo with an @": {"url": f"https://user:p@{SECRET}@host/"},
    "a query value": {"url.full": f"http://host/x?a=1&access_token={SECRET}#f"},
    "a bearer token": {"msg": f"got Bearer {SECRET} from it"},
    "a bearer token in any case": {"msg": f"bEaReR {SECRET}"},
    "an exception": {"error_text": f"ValueError: bad password: {SECRET}"},
    "an object": {"thing": Shown()},
    "a struct": {"thing": Inner(SECRET)},
    "an f-string": {"msg": f"api_key={SECRET}, x=1"},
    "an arrow": {"msg": f"client-secret => '{SECRET}'"},
    "no blank at all": {"msg": f"password:{SECRET}"},
    "a set": {"tags": {f"token={SECRET}"}},
    "a scheme under a name of its own": {"msg": f"X-Api-Token: Bearer {SECRET}"},
    "two schemes": {"msg": f"token=Bearer bearer {SECRET}"},
    "a scheme in a pair": {"msg": f"secret=basic {SECRET}, x=1"},
    "a pair in a value": {"msg": f"password: token='{SECRET}'"},
    "a repr of a list under a name": {"msg": repr({"token": [SECRET]})},
    "a forwarded certificate": {"msg": f'X-Forwarded-Client-Cert: Hash=1;Cert="{SECRET}";URI=spiffe://a/{SECRET}'},
    "a quoted cookie": {"msg": f'Cookie: a="{SECRET}"; b="{SECRET}"'},
    "a quoted cookie in JSON": {"msg": json.dumps({"line": f'Cookie: a="{SECRET}"; b=c'})},
    "parameters of a scheme": {"msg": f'Authorization: Digest username="a", response="{SECRET}"'},
    "an event's text": {"event_text": f"x-api-key:{SECRET}"},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_redacted_at_any_place_of_a_record(place: str) -> None:
    for _ in range(2):  # The second time the names take the fast path.
        text = line(**PLACES[place], fine="stays")
        assert SECRET not in text
        assert REDACTED in text
        assert json.loads(text)["fine"] == "stays"


@pytest.mark.parametrize("value", [JWT, f"/verify/{JWT}", f"x={JWT}"])
def test_a_value_in_the_form_of_a_token_is_redacted_under_any_name(value: str) -> None:
    line(anything="x")
    assert JWT.split(".")[1] not in line(anything=value)


API_KEY = "uk_4nqXy0m9vJ3rT8cWkqB1sZ6fLhD2eP5aUoGxR7iYt-_"


@pytest.mark.parametrize(
    "value",
    [
        API_KEY,
        f"/verify/{API_KEY}/x",
        f"no{API_KEY}",
        f"uk_uk_{API_KEY}uk_",
        f"uk_short/{API_KEY}",
        f"пароль {API_KEY}",
    ],
)
def test_a_value_in_the_form_of_an_api_key_is_redacted_under_any_name(value: str) -> None:
    for _ in range(2):  # The second time the name takes the fast path.
        assert API_KEY[3:24] not in (text := line(anything=value))
        assert REDACTED in text
    assert Redactor().suspects(json.dumps({"path": value}).encode())
    assert json.loads(line(error=ValueError(f"bad {value}")))["error"].count(REDACTED) == 1


def test_the_rest_of_an_api_key_that_is_cut_off_is_redacted() -> None:
    assert Redactor().text(f"/a/{API_KEY[:-1]}") == f"/a/{REDACTED}"
    text = "x" * (TEXT_CHARS_MAX - 30) + API_KEY
    assert Redactor().text(text).endswith(f"x{REDACTED}")


@pytest.mark.parametrize("name", ["path", "api", "x"])
def test_an_api_key_in_a_record_of_the_schema_is_redacted(name: str) -> None:
    made = msgspec.defstruct("Made", [(name, str)])(f"/a/{API_KEY}")
    text = Encoder(Redactor(), service="test").struct("info", "e", made).decode()
    assert API_KEY[3:24] not in text


@pytest.mark.parametrize(
    "text",
    [
        "uk_",
        "uk_customers/of/2024",
        "a/uk_customers",
        API_KEY[:-1] + "/",
        "token bucket refilled",
        "the secret of success",
        "http://127.0.0.1:9001/a?b=c",
        "GET /users/42 took 3 ms",
        "mail to a@b.example",
        "/@user/post",
        "a: b, c: d",
    ],
)
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert Redactor().text(text) is text
    assert json.loads(line(text=text))["text"] == text


@pytest.mark.parametrize("name", ["author", "cookies_eaten", "pass", "key", "tok"])
def test_values_of_names_that_only_resemble_secret_names_are_unchanged(name: str) -> None:
    assert json.loads(line(**{name: "visible"}))[name] == "visible"


@given(
    before=st.text(max_size=20),
    after=st.text(alphabet=st.characters(exclude_characters="[redacted"), max_size=20),
    name=st.sampled_from(["password", "X-Api-Key", "refresh_token", "client.secret"]),
    separator=st.sampled_from(["=", ": ", ":", " = ", "=>"]),
)
def test_the_value_of_a_secret_name_within_any_text_is_redacted(
    before: str, after: str, name: str, separator: str
) -> None:
    if re.search(r"[\w.-]$", before):
        before += " "
    assert SECRET not in Redactor().text(f"{before}{name}{separator}{SECRET} {after}")
    for quote in ("'", '"', '\\"', "\\'"):
        assert SECRET not in Redactor().text(f"{before}{name}{separator}{quote}{SECRET}{quote} {after}")


@given(
    value=st.recursive(
        st.text() | st.integers() | st.binary() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
def test_any_value_makes_one_valid_line(value: Any) -> None:
    text = line(value=value)

    assert len(text.splitlines()) == 1
    json.loads(text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)


@pytest.mark.parametrize(
    "junk", ["a\r\nb", "\x1b[31mred\x1b[0m", "\x9b31m", "a\u2028b", "\udcff\udc80", "\x00", '"}\n{"event":"forged"']
)
def test_no_value_adds_a_line_or_a_field_to_a_record(junk: str) -> None:
    for fields in (
        {"msg": junk},
        {"nested": {"key": [junk]}},
        {junk: 1},
        {"raw": junk.encode("utf-8", "surrogateescape") if junk.isascii() else b"\xff\xfe"},
    ):
        text = line(**fields)
        assert text.count("\n") == 1
        assert "\x1b" not in text
        assert json.loads(text)["event"] == "e"


def test_no_event_name_adds_a_line_or_a_field_to_a_record() -> None:
    text = finish(Encoder(Redactor(), service="t").fields("info", 'x"}\n{"level":"forged', {}), 1)
    assert text.count(b"\n") == 1
    assert json.loads(text)["level"] == "info"


ATOMS = ("secret.a.", "token=a ", "cookie:", "bearer ", "-eyJabcd", "://", "@", "=", " ", "\\", '"', '\\"', ",", "xy")
ATOMS = (*ATOMS, "uk_", "uk_abcdefghijklmnopqrstu")
NAMES: Sequence[Sequence[str]] = (
    (),
    ("*x*y*", "a*b*c*d*e", "*.id", "client.id"),
    ("*",),
    ("my name", "pin#*", " ", "\\"),
)


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_a_text_is_redacted_in_linear_time_for_any_configured_names(names: Sequence[str]) -> None:
    redactor = Redactor(names)
    shapes = texts_of_atoms(ATOMS, ("", "token", "cookie:"), ("", '"', "=1"))
    check_linear(redactor.text, shapes, binary=False)


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_a_name_is_compared_with_secret_names_in_linear_time(names: Sequence[str]) -> None:
    check_linear(
        Redactor(names).is_secret, texts_of_atoms(("x", "y", "xy", "a", "ab.", ".", "-", "api-")), binary=False
    )


def test_many_names_that_almost_match_a_secret_name_do_not_block_the_loop() -> None:
    redactor = Redactor([f"*n{number}*cookie*z{number}*" for number in range(100)])
    text = " ".join(f"cookie{number}=a" for number in range(6000))
    started = time.thread_time()
    redactor.text(text)
    assert time.thread_time() - started < 0.25  # 15 ms; without a bound on the comparisons 900 ms.


@pytest.mark.parametrize(
    ("pattern", "secret", "plain"),
    [
        ("*x*y*", ("axbyc", "xy"), ("yx", "x", "")),
        ("a*b", ("ab", "a-b", "q.a-b", "axb"), ("ab-", "qab", "a")),
        ("aba*aba", ("abaaba", "aba.aba"), ("ababa", "aba")),
        ("client.id", ("client.id", "http.client.id"), ("id", "client", "myclient.id")),
        ("*.id", ("a.id", ".id"), ("id",)),
        ("*", ("anything", ""), ()),
    ],
)
def test_a_star_matches_any_characters_and_parts_do_not_overlap(
    pattern: str, secret: Sequence[str], plain: Sequence[str]
) -> None:
    redactor = Redactor([pattern])
    assert [name for name in secret if not redactor.is_secret(name)] == []
    assert [name for name in plain if redactor.is_secret(name)] == []


@pytest.mark.parametrize("name", ["my name", "my na*me", "pin#", "x:y", "a b*"])
def test_a_secret_name_with_punctuation_is_found_within_a_text(name: str) -> None:
    assert SECRET not in Redactor([name]).text(f"see {name.replace('*', '')} = {SECRET} there")


def test_a_secret_name_that_is_not_ascii_is_found_in_either_case() -> None:
    assert Redactor(["пароль"]).suspects('{"msg":"ПАРОЛЬ=x"}'.encode())


PADDING = "x" * (TEXT_CHARS_MAX - 40)


@pytest.mark.parametrize(
    "text",
    [
        f"{PADDING} https://user:{SECRET}{'z' * 40}@host/",
        f"{PADDING} https://user:p@{SECRET}{'z' * 40}@host/",
        f"{PADDING} password={SECRET}{'z' * 80}",
        f'{PADDING} "password": "{SECRET}{"z" * 80}"',
        f"{PADDING} Authorization: Basic {SECRET}{'z' * 80}",
        f"{PADDING} bearer {SECRET}{'z' * 80}",
    ],
)
def test_a_cut_text_shows_no_part_of_a_secret(text: str) -> None:
    assert SECRET not in Redactor().text(text)
    assert SECRET not in sanitize(text, Redactor())
    assert SECRET not in sanitize(text.encode(), Redactor())
    assert SECRET not in line(text=text)


def test_a_cut_traceback_keeps_the_name_of_each_secret() -> None:
    for fill in range(40):
        error = ValueError("a" * (STACK_CHARS_MAX - 40 - fill) + f" password = '{SECRET} {SECRET}' " + "b" * fill)
        sanitized = exception_fields(error)
        for name in ("exception.message", "exception.stacktrace"):
            assert SECRET not in Redactor().text(str(sanitized[name]))


def test_a_cut_leaf_of_an_exception_group_shows_no_part_of_a_secret() -> None:
    error = ExceptionGroup("g", [ValueError(f"{'a' * 120} https://user:{SECRET}{'z' * 80}@host")])
    assert SECRET not in str(exception_fields(error, stack=False)["leaves"])


def test_a_text_beyond_the_bound_of_a_record_is_cut_and_the_rest_counted() -> None:
    assert sanitize("x" * (TEXT_CHARS_MAX + 7), Redactor()) == "x" * TEXT_CHARS_MAX + "… 7 more"
    first, second = sanitize(["x" * (TEXT_CHARS_MAX - 1), "abc"], Redactor())
    assert (len(first), second) == (TEXT_CHARS_MAX - 1, "a… 2 more")


def test_a_record_of_many_values_shows_a_bounded_number() -> None:
    wide = [[number] * 500 for number in range(900)]
    sanitized = sanitize(wide, Redactor())
    assert json.dumps(sanitized).count(",") < 2 * VALUES_MAX
    assert sanitized[0] == [0] * 500
    assert sanitized[-1] == "…"


def test_a_record_of_many_secrets_shows_a_bounded_number() -> None:
    wide = {f"k{outer}": {f"token{inner}": "a" for inner in range(900)} for outer in range(900)}
    sanitized = sanitize(wide, Redactor())
    assert json.dumps(sanitized).count(REDACTED) <= VALUES_MAX
    assert sanitized["…"] == f"{900 - len(sanitized) + 1} more"


def test_a_long_key_is_cut() -> None:
    (name,) = sanitize({"k" * 5000: 1}, Redactor())
    assert len(name) == NAME_CHARS_MAX


@pytest.mark.parametrize(
    "items",
    [["token=S3CR3T", "other"], ["no password given for bob", "disk /dev/sda is full"], ("password: S3CR3T", 3)],
)
def test_a_sentence_with_a_secret_name_is_not_taken_for_a_field_name(items: Any) -> None:
    sanitized = sanitize(items, Redactor(()))
    assert len(sanitized) == 2
    assert sanitized[1] == items[1]
    assert "S3CR3T" not in json.dumps(sanitized)
