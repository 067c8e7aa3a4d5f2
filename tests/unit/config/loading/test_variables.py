"""Variables that are files, and the types of values that are one variable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.gateway.configs import CALL, GOOD, ROUTE, UPSTREAM, loaded, mistakes, write
from umbel.config.loading.load import load_for_display
from umbel.config.loading.variables import FILE_MAX
from umbel.config.schema.reference.jsonschema import json_schema


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"", ""),
        ("gehéim${KEY}".encode(), "gehéim${KEY}"),
    ],
)
def test_a_file_is_read_without_its_last_line_end(content: bytes, value: str, tmp_path: Path) -> None:
    text = '[upstreams.u]\nurls = ["http://h"]\nheaders = { x-a = "a ${file:in/key}", x-b = "${file:in/key}" }\n'
    config = loaded(tmp_path, text, {"in/key": content})
    assert config.upstreams["u"].headers == {"x-a": f"a {value}", "x-b": value}


def test_the_path_of_a_file_is_relative_to_the_file_that_names_it_or_absolute(tmp_path: Path) -> None:
    (tmp_path / "absolute").write_text("/three")
    files = {
        "in/a.toml": ROUTE.replace('"/r"', '"${file:path}"') + CALL,
        "in/path": "/one",
        "path": "/two",
    }
    text = 'include = ["in/a.toml"]\n' + UPSTREAM + ROUTE.replace('"/r"', '"${file:path}"') + CALL
    text += ROUTE.replace('"/r"', f'"${{file:{tmp_path}/absolute}}"') + CALL
    assert [route.path for route in loaded(tmp_path, text, files).routes] == ["/two", "/three", "/one"]


def test_a_file_is_read_again_at_each_load(tmp_path: Path) -> None:
    text = UPSTREAM + 'headers = { x-a = "${file:key}" }\n'
    for value in ("first", "second"):
        assert loaded(tmp_path, text, {"key": value}).upstreams["u"].headers["x-a"] == value


def test_a_file_that_cannot_be_used_is_a_mistake_at_its_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    names = ("none", "pipe", "large", "binary", "in", "a\\u0000b", "")
    text = UPSTREAM + "".join(f'[[routes]]\npath = "/${{file:{name}}}"\n{CALL}' for name in names)
    reasons = (
        "the file none cannot be read: there is no such file",
        "the file pipe cannot be read: it is a named pipe, not a regular file",
        f"the file large is larger than {FILE_MAX // 1024}KiB",
        "the file binary is not UTF-8 text",
        "the file in cannot be read: it is a directory",
        "the file a\\x00b cannot be read: no file can have this name",
        "the file  cannot be read: it is a directory",
    )
    files = {"large": b"x" * (FILE_MAX + 1), "binary": b"\xff", "in/x": b""}
    assert mistakes(tmp_path, text, files) == [
        f"umbel.toml:{4 + 3 * number}: routes[{number}].path: {reason}" for number, reason in enumerate(reasons)
    ]


def test_the_content_of_a_file_is_hidden_in_messages(tmp_path: Path) -> None:
    text = UPSTREAM + '[[routes]]\npath = "${file:key}"\n' + CALL
    (said,) = mistakes(tmp_path, text, {"key": "s3cret-path"})
    assert said == 'umbel.toml:4: routes[0].path: a path must begin with "/", not "${file:key}"'
    path = write(tmp_path, GOOD + 'headers.a = "x"\n'.replace("headers", "answer.headers"), {"key": "s3cret"})
    path.write_text(path.read_text().replace('"x"', '"x ${file:key}"'))
    shown = load_for_display(path)
    assert shown.hide(shown.config.routes[0].answer.headers["a"]) == "x ${file:key}"


def test_a_variable_of_the_environment_may_have_the_name_file(tmp_path: Path) -> None:
    config = loaded(tmp_path, UPSTREAM + 'headers = { a = "${file}", b = "${file:-x}" }\n', environ={"file": "y"})
    assert config.upstreams["u"].headers == {"a": "y", "b": "y"}


VALUES: dict[str, tuple[str, Any]] = {
    "server.max_fields": ("50", 50),
    "upstreams.u.public_only": ("true", True),
    "upstreams.u.coalesce": ("false", False),
    "upstreams.u.max_concurrency": ("7", 7),
    "upstreams.v.max_concurrency": ("auto", "auto"),
    "upstreams.u.timeout": ("250ms", 0.25),
    "upstreams.u.retry_budget": ("50%", 0.5),
    "upstreams.u.urls": ("http://a, http://b", ("http://a", "http://b")),
    "upstreams.u.ejection": ("false", False),
    "upstreams.v.deadline_header": ("x-left", "x-left"),
    "routes.0.calls.c.ok": ("200,404", (200, 404)),
    "routes.0.calls.c.null_on": ("410", (410,)),
    "routes.0.calls.c.forward_headers": ("", ()),
    "routes.0.calls.c.default": ("5", "5"),
    "routes.0.answer.status": ("201", 201),
    "server.hosts": ("a.example", ("a.example",)),
    "logs.keep_days": ("1.5", 1.5),
}


def _read(config: Any, path: str) -> Any:
    for part in path.split("."):
        config = (
            config[int(part)] if part.isdigit() else config[part] if isinstance(config, dict) else getattr(config, part)
        )
    return config


def test_a_value_that_is_one_variable_takes_the_type_of_its_key(tmp_path: Path) -> None:
    names = {path: f"V{number}" for number, path in enumerate(VALUES)}

    def keys(prefix: str) -> str:
        inside = [path for path in VALUES if path.startswith(prefix) and "." not in path.removeprefix(prefix)]
        return "".join(f'{path.removeprefix(prefix)} = "${{{names[path]}}}"\n' for path in inside)

    text = f"[server]\n{keys('server.')}[logs]\n{keys('logs.')}[upstreams.u]\n{keys('upstreams.u.')}"
    text += f'[upstreams.v]\nurls = ["http://v"]\n{keys("upstreams.v.")}'
    text += f'{ROUTE}[routes.answer]\n{keys("routes.0.answer.")}[routes.calls.c]\nupstream = "u"\npath = "/"\n'
    text += f"optional = true\n{keys('routes.0.calls.c.')}"
    config = loaded(tmp_path, text, environ={names[path]: value for path, (value, _) in VALUES.items()})
    assert {path: _read(config, path) for path in VALUES} == {path: value for path, (_, value) in VALUES.items()}


@pytest.mark.parametrize("value", ["", "x", "5.5", "1_000", "0x10", "5 ", "99999999999999999999", "true", "[5]", "5,6"])
def test_a_variable_that_does_not_fit_is_a_mistake_about_a_text(value: str, tmp_path: Path) -> None:
    text = UPSTREAM + 'max_queue = "${N}"\n'
    assert mistakes(tmp_path, text, environ={"N": value}) == [
        "umbel.toml:3: upstreams.u.max_queue: needs a whole number, not a text"
    ]


@pytest.mark.parametrize(
    ("kind", "value", "default"),
    [
        ("int", "5", 5),
        ("float", "5", 5),
        ("bool", "false", False),
        ("str", "5", "5"),
        ("list[int]", "1, 2", (1, 2)),
        ("list[bool]", "", ()),
        ("list[str]", "1,a", ("1", "a")),
    ],
)
def test_the_default_of_a_query_parameter_that_is_a_variable_takes_its_type(
    kind: str, value: str, default: object, tmp_path: Path
) -> None:
    query = f'query = {{ q = {{ type = "{kind}", default = "${{N}}" }} }}\n'
    for text in (UPSTREAM + ROUTE + CALL + query, f"[defaults.route]\n{query}{UPSTREAM}{ROUTE}{CALL}"):
        found = loaded(tmp_path, text, environ={"N": value}).routes[0].query_params["q"].default
        assert found == default
        assert type(found) is type(default)


def test_a_default_of_a_query_parameter_in_a_variable_that_does_not_fit_is_a_mistake(tmp_path: Path) -> None:
    query = 'query = { a = { type = "int", default = "${N}" }, b = { type = "list[int]", default = ["${N}", 1] } }\n'
    reason = "must have that type; it is a text"
    for value in ("x", "1.5", "true", ""):
        assert mistakes(tmp_path, UPSTREAM + ROUTE + CALL + query, environ={"N": value}) == [
            f'umbel.toml:6: routes[0].query.a.default: the default of a parameter of type "int" {reason}',
            f'umbel.toml:6: routes[0].query.b.default: the default of a parameter of type "list[int]" {reason}',
        ]


def test_a_text_beside_a_variable_stays_a_text(tmp_path: Path) -> None:
    for value in ("1${N}", "${N}${N}", "$${N}"):
        text = UPSTREAM + f'max_queue = "{value}"\n'
        (said,) = mistakes(tmp_path, text, environ={"N": "5"})
        assert said.endswith("max_queue: needs a whole number, not a text")


def test_limits_and_defaults_hold_for_variables_too(tmp_path: Path) -> None:
    text = '[defaults.upstream]\nmax_queue = "${N}"\ncoalesce = "${B:-true}"\n' + UPSTREAM
    config = loaded(tmp_path, text, environ={"N": "5"})
    assert (config.upstreams["u"].max_queue, config.upstreams["u"].coalesce) == (5, True)
    assert mistakes(tmp_path, text, environ={"N": "-5"}) == [
        "umbel.toml:2: defaults.upstream.max_queue: must be at least 0"
    ]


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def test_a_variable_in_a_json_value_is_a_text_that_json_can_encode(tmp_path: Path) -> None:
    call = 'calls.c = { upstream = "u", path = "/", method = "POST", optional = true, default = ["${X}"], '
    call += 'params = { p = { value = "${X}" } }, json = { k = { value = { a = "${X}", b = ["${X}"] } } } }\n'
    inherited = '[defaults.route]\nquery = { q = { default = "${X}" } }\n'
    text = f"{inherited}{UPSTREAM}{ROUTE}{call}"
    text += '[[routes]]\npath = "/s"\nrespond = { json = { a = "${X}", b = ["${X}", "${X:-}"] } }\n'
    config = loaded(tmp_path, text, environ={"X": "5"})
    assert [text for text in _texts(config.model_dump()) if type(text) is not str] == []
    assert msgspec.json.encode(config.routes[1].respond.json_) == b'{"a":"5","b":["5","5"]}'  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ['"${N}"', '"${N:-}"', '"${file:empty}"', "[]"])
@pytest.mark.parametrize("key", ["allow_networks", "hosts"])
def test_a_list_that_would_allow_all_must_not_be_empty(key: str, value: str, tmp_path: Path) -> None:
    text = f"{GOOD}[server]\n{key} = {value}\n"
    (said,) = mistakes(tmp_path, text, {"empty": ""}, environ={"N": ""})
    assert said.partition("server.")[2] == (
        f"{key}: must not be empty, which would allow all; list what is allowed, or remove the key"
    )


def test_the_json_schema_accepts_one_variable_for_a_number_a_truth_value_and_a_list() -> None:
    upstream = json_schema()["$defs"]["Upstream"]["properties"]
    one = {"type": "string", "pattern": r"^\$\{[^}]*\}$"}
    for key in ("max_queue", "max_fields", "public_only", "urls", "max_concurrency"):
        assert one in upstream[key]["anyOf"], key
        assert "description" in upstream[key]
    assert "anyOf" not in upstream["timeout"]


def test_the_items_of_a_list_in_a_variable_are_hidden_in_messages(tmp_path: Path) -> None:
    text = '[server]\nhosts = "${HOSTS}"\nallow_networks = "${file:networks}"\n' + GOOD
    text = text.replace('path = "/r"', 'path = "/r"\nmethods = "${METHODS}"', 1)
    environ = {"HOSTS": "a.example, s3cret host", "METHODS": "GET,SECRETMETHOD"}
    said = "\n".join(mistakes(tmp_path, text, {"networks": "10.0.0.0/8,hunter22 pw"}, environ=environ))
    assert all(shown in said for shown in ('"${HOSTS}"', '"${METHODS}"', '"${file:networks}"'))
    assert not any(secret in said for secret in ("s3cret", "SECRETMETHOD", "hunter22"))
