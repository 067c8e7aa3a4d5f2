"""Loading of a valid configuration: includes, defaults, variables, paths, and line numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gateway.configs import CALL, GOOD, ROUTE, UPSTREAM, loaded, mistakes, write
from umbel.config.loading.load import load, load_for_display
from umbel.config.schema.sections import Config, KeyPath
from umbel.core.errors import ConfigError


def test_an_empty_file_is_a_configuration_of_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, "")
    assert config.upstreams == {}
    assert config.routes == ()
    assert config.server.write_timeout == 30.0
    assert config.logs.dir == str(tmp_path / "logs")


def test_upstreams_and_routes_of_included_files_are_added_in_the_order_of_reading(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'include = ["routes/*.toml", "more.toml"]\n' + GOOD,
        {
            "routes/b.toml": '[[routes]]\npath = "/b"\ncalls.c = { upstream = "v", path = "/" }\n',
            "routes/a.toml": 'include = ["deep/*.toml"]\n[[routes]]\npath = "/a"\n' + CALL,
            "routes/deep/d.toml": '[upstreams.v]\nurls = ["http://v"]\n[[routes]]\npath = "/d"\n' + CALL,
            "more.toml": '[[routes]]\npath = "/m"\n' + CALL,
        },
    )
    assert [route.path for route in config.routes] == ["/r", "/a", "/d", "/b", "/m"]
    assert list(config.upstreams) == ["u", "v"]


def test_a_file_that_includes_itself_or_is_named_twice_is_read_once(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'include = ["*.toml", "a.toml", "**/a.toml"]\n' + GOOD,
        {"a.toml": 'include = ["umbel.toml"]\n[[routes]]\npath = "/a"\n' + CALL},
    )
    assert [route.path for route in config.routes] == ["/r", "/a"]


def test_defaults_of_the_main_file_hold_in_all_files_and_tables_merge_key_by_key(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'include = ["a.toml"]\n'
        '[defaults.upstream]\ntimeout = "2s"\nmax_queue = 7\nheaders = { x-a = "default", x-b = "default" }\n'
        '[defaults.route]\ndeadline = "3s"\nanswer = { status = 201, etag = false }\n'
        '[upstreams.u]\nurls = ["http://u"]\ntimeout = "1s"\nheaders = { x-a = "own" }\n' + ROUTE + CALL,
        {"a.toml": '[upstreams.v]\nurls = ["http://v"]\n[[routes]]\npath = "/a"\nanswer.status = 202\n' + CALL},
    )
    u, v = config.upstreams["u"], config.upstreams["v"]
    assert (u.timeout, u.max_queue, u.headers) == (1.0, 7, {"x-a": "own", "x-b": "default"})
    assert (v.timeout, v.headers) == (2.0, {"x-a": "default", "x-b": "default"})
    assert [route.deadline for route in config.routes] == [3.0, 3.0]
    assert [(route.answer.status, route.answer.etag) for route in config.routes] == [(201, False), (202, False)]


def test_a_default_header_is_replaced_whatever_the_case_of_its_name(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        '[defaults.upstream]\nheaders = { X-A = "default", X-B = "default" }\n'
        '[upstreams.u]\nurls = ["http://u"]\nheaders = { x-a = "own" }\n',
    )
    assert config.upstreams["u"].headers == {"x-a": "own", "x-b": "default"}


@pytest.mark.parametrize(
    ("text", "environ", "value"),
    [
        ("Bearer ${KEY}", {"KEY": "k"}, "Bearer k"),
        ("${KEY:-none}", {"KEY": "k"}, "k"),
        ("${KEY:-none}", {}, "none"),
        ("${KEY:-none}", {"KEY": ""}, "none"),
        ("${KEY}", {"KEY": ""}, ""),
        ("${KEY:-}", {}, ""),
        ("${A}${B:-b}-${A}", {"A": "a"}, "ab-a"),
        ("$${KEY} and $KEY and $", {"KEY": "k"}, "${KEY} and $KEY and $"),
        ("${KEY}", {"KEY": "${OTHER}"}, "${OTHER}"),
    ],
)
def test_variables_are_replaced_once_and_as_in_a_shell(
    text: str, environ: dict[str, str], value: str, tmp_path: Path
) -> None:
    config = loaded(tmp_path, f'[upstreams.u]\nurls = ["http://h"]\nheaders.x = "{text}"\n', environ=environ)
    assert config.upstreams["u"].headers["x"] == value


def test_variables_are_replaced_in_every_text_but_not_in_keys(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'include = ["${DIR}/*.toml"]\n[logs]\ndir = "${DIR}"\n[defaults.route]\ndeadline = "${D}"\n'
        '[upstreams.u]\nurls = ["${URL}"]\nparams."${DIR}" = "`1`"\n',
        {"in/a.toml": ROUTE + CALL},
        {"DIR": "in", "URL": "http://h:1/base/", "D": "250ms"},
    )
    assert config.routes[0].deadline == 0.25
    assert config.upstreams["u"].urls == ("http://h:1/base",)
    assert list(config.upstreams["u"].params) == ["${DIR}"]
    assert config.logs.dir == str(tmp_path / "in")


def test_the_environment_of_the_process_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMBEL_TEST_PATH", "/from-the-process")
    path = write(tmp_path, UPSTREAM + '[[routes]]\npath = "${UMBEL_TEST_PATH}"\n' + CALL)
    assert load(path).routes[0].path == "/from-the-process"


def test_paths_are_relative_to_the_file_that_contains_them(tmp_path: Path) -> None:
    from trustme import CA

    pem = CA().cert_pem.bytes()
    config = loaded(
        tmp_path,
        'include = ["sub/a.toml"]\n[logs]\ndir = "var/log"\n[defaults.upstream.tls]\nca = "main.pem"\n'
        '[upstreams.u]\nurls = ["https://u"]\n',
        {
            "sub/a.toml": '[upstreams.v]\nurls = ["https://v"]\ntls.ca = "own.pem"\n[upstreams.w]\nurls = ["https://w"]\n',
            "main.pem": pem,
            "sub/own.pem": pem,
        },
    )
    assert config.upstreams["u"].tls.ca == str(tmp_path / "main.pem")
    assert config.upstreams["v"].tls.ca == str(tmp_path / "sub/own.pem")
    assert config.upstreams["w"].tls.ca == str(tmp_path / "main.pem")
    assert config.logs.dir == str(tmp_path / "var/log")


PLACED = """\
include = ["more.toml"]
[defaults.route]
deadline = "1s"

[upstreams.u]
urls = [
  "http://h",
  "http://i",
]

[[routes]]
path = "/r"
[routes.calls.a]
upstream = "u"
path = "/"
[routes.calls."b"]
each = "a"
upstream = "u"
path = '''
/'''
params = { one = "a", "two" = "a" }

[[routes]]
path = "/s"
calls.a = { upstream = "u", path = "/" }
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("include", 0), "umbel.toml:1"),
        (("upstreams", "u"), "umbel.toml:5"),
        (("upstreams", "u", "urls", 1), "umbel.toml:8"),
        (("upstreams", "u", "timeout"), "umbel.toml:5"),
        (("routes", 0), "umbel.toml:11"),
        (("routes", 0, "calls", "a", "each"), "umbel.toml:13"),
        (("routes", 0, "calls", "b"), "umbel.toml:16"),
        (("routes", 0, "calls", "b", "each"), "umbel.toml:17"),
        (("routes", 0, "calls", "b", "params", "two"), "umbel.toml:21"),
        (("routes", 0, "deadline"), "umbel.toml:3"),
        (("routes", 1, "calls", "a", "path"), "umbel.toml:25"),
        (("routes", 2), "more.toml:2"),
        (("routes", 2, "path"), "more.toml:3"),
        (("routes", 2, "deadline"), "umbel.toml:3"),
        (("upstreams", "v", "urls"), "more.toml:6"),
        (("server", "max_body"), "umbel.toml"),
        ((), "umbel.toml"),
    ],
)
def test_where_gives_the_file_and_line_of_any_key(path: KeyPath, place: str, tmp_path: Path) -> None:
    more = '\n[[routes]]\npath = "/m"\ncalls.a = { upstream = "v", path = "/" }\n[upstreams.v]\nurls = ["http://v"]\n'
    assert loaded(tmp_path, PLACED, {"more.toml": more}).where(path) == place


def test_where_gives_the_key_path_in_a_configuration_made_in_code() -> None:
    assert Config().where(("routes", 0, "path")) == "routes.0.path"


def test_a_valid_configuration_is_loaded_without_line_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    code = (
        "import sys; from umbel.config.loading.load import load; "
        f"config = load({str(path)!r}); assert 'tree_sitter' not in sys.modules; "
        "config.where(('routes', 0)); assert 'tree_sitter' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_checks_run_on_placeholders_and_report_lines_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        UPSTREAM + "[upstreams.bad]\nurls = []\n"
        '[[routes]]\npath = "wrong"\n' + CALL + '[[routes]]\npath = "/of-bad"\n'
        'calls.c = { upstream = "bad", path = "/" }\n[[routes]]\npath = "/good"\n' + CALL,
    )
    seen: list[str] = []

    def check(config: Config) -> list[tuple[KeyPath, str]]:
        seen.extend(route.path for route in config.routes)
        assert list(config.upstreams) == ["u", "bad"], (
            "a wrong upstream has a placeholder, so no route of it is reported"
        )
        replaced, real = ("routes", 0, "path"), ("routes", 2, "path")
        assert (config.is_placeholder(replaced), config.is_placeholder(real)) == (True, False)
        return [(replaced, "is a placeholder"), (real, "is not to my taste")]

    with pytest.raises(ConfigError) as caught:
        load(path, checks=(check,), environ={})
    assert seen == ["/", "/of-bad", "/good"]
    assert len(caught.value.problems) == 3
    problem = caught.value.problems[-1]
    assert (problem.line, problem.key, problem.reason) == (12, "routes[2].path", "is not to my taste")


def test_an_unknown_upstream_that_an_unreadable_file_may_define_is_no_problem(tmp_path: Path) -> None:
    text = 'include = ["a.toml"]\n' + ROUTE + 'calls.c = { upstream = "elsewhere", path = "/{nope}" }\n'
    said = mistakes(tmp_path, text, {"a.toml": "["})
    assert said[0] == 'umbel.toml:4: routes[0].calls.c.path: "nope" is an unknown name'
    assert said[1].startswith("a.toml:1: is not TOML: ")
    assert len(said) == 2


def test_hide_replaces_the_value_of_each_variable(tmp_path: Path) -> None:
    path = write(tmp_path, '[upstreams.u]\nurls = ["http://h"]\nheaders.a = "Bearer ${KEY}"\n')
    loaded = load_for_display(path, environ={"KEY": "s3cret-value"})
    assert loaded.hide(loaded.config.upstreams["u"].headers["a"]) == "Bearer ${KEY}"
