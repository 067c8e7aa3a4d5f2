"""``[cors]`` and ``[headers]``: each mistake is reported with its place and with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, GOOD, ROUTE, UPSTREAM, loaded, mistakes


def said(directory: Path, text: str) -> list[str]:
    """Return the mistakes in ``text`` before ``GOOD``, without the name of the file."""
    return [line.removeprefix("umbel.toml:") for line in mistakes(directory, text + GOOD)]


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("null", "every sandboxed document"),
        ("app.example", "is not an origin"),
        ("https://app.example/", "is not an origin"),
        ("https://app.example/path", "is not an origin"),
        ("https://user@app.example", "is not an origin"),
        ("https://app.example:0", "is not an origin"),
        ("https://b\xfccher.example", "write its form with xn--"),
        ("https://app.example.", "remove the dot at its end"),
        ("https://app.example:65536", "a port over 65535"),
        ("http://127.1", "in a form that no browser sends"),
        ("http://010.0.0.1", "in a form that no browser sends"),
        ("https://0x7f.1", "in a form that no browser sends"),
        ("https://1", "in a form that no browser sends"),
        ("http://[0:0::1]:8000", "no browser sends; write [::1]"),
        ("http://[::ffff:127.0.0.1]", "no browser sends; write [::ffff:7f00:1]"),
        ("http://[1]", "in a form that no browser sends"),
        ("https://a.*.example", "is not an origin"),
        ("https://pr-*.app.example", "is not an origin"),
        ("https://*", "is not an origin"),
        ("*.app.example", "is not an origin"),
        ("https://app.example:443", "remove :443"),
        ("http://app.example:80", "remove :80"),
        ("https://*.com", "the sites of many owners"),
        ("https://*.github.io", "a domain of your own"),
        ("https://*.co.uk", "a domain of your own"),
        ("https://*.0.0.1", "a wildcard in an address"),
        ("https://*.1.2.3.4", "a wildcard in an address"),
    ],
)
def test_a_text_that_no_browser_sends_as_origin_or_that_allows_too_much_is_a_mistake(
    tmp_path: Path, origin: str, reason: str
) -> None:
    (line,) = said(tmp_path, f'[cors]\norigins = ["{origin}"]\n')
    assert line.startswith("2: cors.origins[0]: ")
    assert reason in line


@pytest.mark.parametrize(
    "origin",
    [
        *("https://app.example", "http://localhost:3000", "https://*.app.example", "http://*.localhost:3000"),
        *("http://[::1]:8080", "http://[::ffff:7f00:1]", "http://127.0.0.1", "capacitor://localhost", "capacitor://1"),
        *("https://*.app.co.uk", "https://*.shop.github.io", "https://app.github.io", "https://co.uk:65535", "*"),
    ],
)
def test_an_origin_is_accepted(tmp_path: Path, origin: str) -> None:
    cors = loaded(tmp_path, f'[cors]\norigins = ["{origin.upper()}"]\n{GOOD}').cors
    assert cors is not None
    assert cors.origins == (origin,)


def test_a_star_and_credentials_exclude_each_other(tmp_path: Path) -> None:
    text = '[cors]\norigins = ["*"]\ncredentials = true\nheaders = ["*"]\nexpose = ["*"]\n'
    lines = said(tmp_path, text)
    assert [line.partition(":")[0] for line in lines] == ["2", "4", "5"]
    assert all("and credentials = true exclude each other" in line for line in lines)
    assert "remove the others" in said(tmp_path, '[cors]\norigins = ["*", "https://app.example"]\n')[0]


def test_an_origin_twice_and_a_field_that_no_page_can_read_are_mistakes(tmp_path: Path) -> None:
    origins = '"https://app.example", "https://APP.example", "https://b.example"'
    lines = said(tmp_path, f'[cors]\norigins = [{origins}]\nexpose = ["etag", "Set-Cookie"]\n')
    assert lines == [
        '2: cors.origins: "https://app.example" is in origins more than once; write it once',
        '3: cors.expose: no browser lets a page read "set-cookie"; remove it',
    ]


def test_compress_without_a_media_type_is_a_mistake(tmp_path: Path) -> None:
    assert said(tmp_path, "[compress]\ntypes = []\n") == ["2: compress.types: must not be empty"]


@pytest.mark.parametrize("name", ["cache-control", "www-authenticate", "Allow", "location"])
def test_a_field_that_belongs_to_one_response_cannot_be_set_or_removed_for_all(tmp_path: Path, name: str) -> None:
    reason = f'"{name.lower()}" cannot be changed for all responses; remove it'
    for key, text in (("set", f'{{ {name} = "x" }}'), ("remove", f'["{name}"]')):
        (line,) = said(tmp_path, f"[headers]\n{key} = {text}\n")
        assert line.startswith(f"2: headers.{key}: {reason}")


def test_etag_and_set_cookie_can_be_removed_from_all_responses_but_not_set(tmp_path: Path) -> None:
    lines = said(tmp_path, '[headers]\nset = { etag = "x", Set-Cookie = "k=v" }\n')
    assert [line.partition(";")[0] for line in lines] == [
        f'2: headers.set: "{name}" cannot be changed for all responses' for name in ("etag", "set-cookie")
    ]
    assert loaded(tmp_path, f'[headers]\nremove = ["etag", "set-cookie"]\n{GOOD}').headers.remove


def test_cors_of_a_route_is_a_table_or_false(tmp_path: Path) -> None:
    text = GOOD + "cors = true\n"
    assert mistakes(tmp_path, text) == ["umbel.toml:6: routes[0].cors: needs a table or false, not true"]
    lines = mistakes(tmp_path, GOOD + "cors = { credentials = true }\n")
    assert lines == ["umbel.toml:6: routes[0].cors.origins: is missing"]
    assert loaded(tmp_path, GOOD + "cors = false\n").routes[0].cors is False


def test_fields_that_other_parts_write_cannot_be_set_or_removed(tmp_path: Path) -> None:
    text = (
        '[headers]\nset = { Vary = "x", access-control-allow-origin = "*", x-a = "1", connection = "close" }\n'
        'remove = ["content-type", "x-a"]\n'
    )
    assert said(tmp_path, text)[0].startswith('2: headers.set.connection: "connection" belongs to one connection')
    lines = said(tmp_path, text.replace(', connection = "close"', ""))
    assert [line.partition(";")[0] for line in lines] == [
        '2: headers.set: "access-control-allow-origin" belongs to CORS',
        '2: headers.set: "vary" cannot be changed for all responses',
        '3: headers.remove: "content-type" cannot be changed for all responses',
        '3: headers.remove: "x-a" is in set and in remove',
    ]


def test_a_value_that_would_split_the_response_is_a_mistake(tmp_path: Path) -> None:
    (line,) = said(tmp_path, '[headers]\nset = { x-a = "1\\r\\nx-b: 2" }\n')
    assert "must not hold a line break" in line


def test_the_tables_belong_in_the_main_file(tmp_path: Path) -> None:
    files = {"more.toml": '[cors]\norigins = ["*"]\n[headers]\n'}
    lines = mistakes(tmp_path, 'include = ["more.toml"]\n' + GOOD, files)
    assert [line.partition(";")[0] for line in lines] == [
        "more.toml:1: cors: belongs in the main file, umbel.toml",
        "more.toml:3: headers: belongs in the main file, umbel.toml",
    ]


def test_routes_that_differ_in_match_only_have_one_set_of_cors_rules(tmp_path: Path) -> None:
    first = f"{ROUTE}match = \"headers.x_a == '1'\"\n{CALL}"
    text = f"{UPSTREAM}{first}{ROUTE}{CALL}cors = false\n"
    reason = "must be the same in all routes that differ in match only; the first one is at umbel.toml:4"
    assert mistakes(tmp_path, text) == [f"umbel.toml:10: routes[1].cors: {reason}"]
    assert not mistakes(tmp_path, f"{UPSTREAM}{first}cors = false\n{ROUTE}{CALL}cors = false\n")
