"""``umbel check``: its output and exit status for valid, wrong and doubtful configurations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.gateway.configs import CALL, GOOD, ROUTE, write
from umbel.cli import main
from umbel.config.schema import compress as compress_schema
from umbel.gateway import checks


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_valid_configuration_is_one_line_and_status_0(here: Path) -> None:
    write(here, GOOD)
    result = CliRunner().invoke(main, ["check"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "umbel.toml: ok, 1 upstream, 1 route, 1 call\n", "")


def test_mistakes_are_a_line_each_on_stderr_and_status_78(here: Path) -> None:
    write(here, GOOD + "banana = 1\n[server]\nmax_body = 5\n")
    result = CliRunner().invoke(main, ["check"])
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr == (
        "umbel.toml:6: routes[0].banana: is not a key of [[routes]]\n"
        'umbel.toml:8: server.max_body: 5 is not a size; write a number and a unit, such as "64KiB" or "10MB"\n'
    )


def test_mistakes_of_plans_are_reported(here: Path) -> None:
    write(here, ROUTE + CALL)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 78
    assert result.stderr == 'umbel.toml:3: routes[0].calls.c.upstream: there is no upstream "u"; add [upstreams.u]\n'


def test_json_of_a_valid_configuration_counts_its_parts(here: Path) -> None:
    write(here, GOOD)
    result = CliRunner().invoke(main, ["check", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "file": "umbel.toml", "upstreams": 1, "routes": 1, "calls": 1}


def test_json_of_mistakes_has_the_parts_of_each_line(here: Path) -> None:
    write(here, 'include = ["ä.toml"]\n')
    result = CliRunner().invoke(main, ["check", "--json"])
    assert (result.exit_code, result.stderr) == (78, "")
    reason = "no file matches this pattern, which is relative to the file that it is in"
    problem = {"file": "umbel.toml", "line": 1, "key": "include[0]", "reason": reason}
    assert json.loads(result.stdout) == {"ok": False, "file": "umbel.toml", "problems": [problem]}


def test_a_mistake_found_only_by_building_a_client_has_its_line(here: Path) -> None:
    write(here, '[upstreams.u]\nurls = ["http://h", "dns+http://."]\n' + ROUTE + CALL)
    result = CliRunner().invoke(main, ["check"])
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr == (
        "umbel.toml:2: upstreams.u.urls[1]: replicas from DNS need a host name; write a URL with an IP address without"
        " dns+\n"
    )


def test_policy_settings_that_conflict_are_reported_with_their_line(here: Path) -> None:
    write(here, '[upstreams.u]\nurls = ["http://h"]\nejection = { base = "10s", max = "5s" }\n' + ROUTE + CALL)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 78
    assert result.stderr.startswith("umbel.toml:3: upstreams.u.ejection: ejection needs ")


def test_a_missing_part_given_to_a_function_is_a_warning_with_status_0(here: Path) -> None:
    write(here, GOOD + 'calls.d = { upstream = "u", path = "/d", optional = true }\nanswer.shape = "merge(c, d)"\n')
    result = CliRunner().invoke(main, ["check"])
    assert (result.exit_code, result.stdout) == (0, "umbel.toml: ok, 1 upstream, 1 route, 2 calls\n")
    reason = (
        'merge() gives null if "d" is null (it is optional and has no default); '
        'give "d" a default, or write not_null(d, …) with another value'
    )
    assert result.stderr == f"warning: umbel.toml:7: routes[0].answer.shape: {reason}\n"
    result = CliRunner().invoke(main, ["check", "--json"])
    warning = {"file": "umbel.toml", "line": 7, "key": "routes[0].answer.shape", "reason": reason}
    assert (result.exit_code, json.loads(result.stdout)["warnings"]) == (0, [warning])


POST = """
[upstreams.u]
urls = ["http://127.0.0.1:1"]
keepalive_expiry = "15s"
[[routes]]
path = "/p"
calls.p = { upstream = "u", path = "/p", method = "POST", hedge = { after = "1s" } }
"""


def test_retry_settings_of_a_call_that_is_never_retried_are_a_warning(here: Path) -> None:
    write(here, POST)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    told = [line.split(": ")[:3] for line in result.stderr.splitlines()]
    assert told == [
        ["warning", "umbel.toml:4", "upstreams.u.keepalive_expiry"],
        ["warning", "umbel.toml:7", "routes[0].calls.p.hedge"],
    ]
    assert "has no effect beyond 4s for routes[0].calls.p, whose request must not be sent twice" in result.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('method = "POST", ', ""),
        ('"POST"', '"PUT"'),
        ('"POST"', '"POST", headers = { Idempotency-Key = "k" }'),
        ('"15s"', '"4s"\nheaders.idempotency-key = "k"'),
    ],
)
def test_a_call_that_may_be_sent_twice_gives_no_such_warning(old: str, new: str, here: Path) -> None:
    write(here, POST.replace(old, new))
    result = CliRunner().invoke(main, ["check"])
    assert (result.exit_code, result.stderr) == (0, "")


def test_mistakes_and_warnings_of_hypercorn_toml_are_reported(here: Path) -> None:
    write(here, GOOD, {"hypercorn.toml": 'loglevel = "INFO"\nbakclog = 1\n'})
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 78
    assert "hypercorn.toml:2: bakclog: is not one of Hypercorn's keys" in result.stderr
    write(here, GOOD, {"hypercorn.toml": '# one\nloglevel = "INFO"\n'})
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: hypercorn.toml:2: loglevel: is ignored here: ")


def test_workers_of_hypercorns_command_that_share_no_limits_are_a_warning(here: Path) -> None:
    (here / "hypercorn.toml").write_text("workers = 3\n")
    section = '[limits.l]\nkey = "client.ip"\nrate = "1/s"\nburst = 5\n'
    (here / "umbel.toml").write_text(section + '[[routes]]\npath = "/r"\nrespond = { text = "x" }\nlimits = "l"\n')
    result = CliRunner().invoke(main, ["check"])
    assert result.stderr.splitlines()[-1] == (
        "warning: hypercorn.toml:1: workers: each of these workers counts by itself for the limits l; "
        "umbel serve -w N counts for all of them"
    )
    (here / "hypercorn.toml").write_text("workers = 1\n")
    assert CliRunner().invoke(main, ["check"]).stderr == ""


def test_hosts_of_routes_that_the_server_refuses_are_warnings(here: Path) -> None:
    routes = "".join(
        f'[[routes]]\npath = "/h{number}"\nhost = "{host}"\ncalls.c = {{ upstream = "u", path = "/" }}\n'
        for number, host in enumerate(("a.example", "*.example:80", "b.test", "*.test", "A.example:81"))
    )
    write(here, f'{GOOD}{routes}[server]\nhosts = ["a.example", "c.a.example:8000"]\n')
    result = CliRunner().invoke(main, ["check"])
    assert [line.partition(" ")[2] for line in result.stderr.splitlines()] == [
        f"umbel.toml:{line}: routes[{route}].host: has no effect: {host} is not in hosts of [server], so it gets 421"
        for line, route, host in ((16, 3, "b.test"), (20, 4, "*.test"))
    ]


def test_networks_that_another_list_makes_useless_are_warnings(here: Path) -> None:
    write(
        here,
        f'{GOOD}[server]\nallow_networks = ["10.1.0.0/16", "10.0.0.0/8", "unix"]\n'
        'deny_networks = ["::ffff:10.1.0.0/112", "unix", "::/0"]\n'
        'trusted_proxies = ["10.2.0.1", "192.0.2.1", "unix"]\n',
    )
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    assert [line.partition("server.")[2] for line in result.stderr.splitlines()] == [
        "allow_networks[0]: has no effect: 10.1.0.0/16 is in ::ffff:10.1.0.0/112 of deny_networks",
        "allow_networks[2]: has no effect: unix is in unix of deny_networks",
        "trusted_proxies[1]: has no effect: 192.0.2.1 is not in allow_networks",
        "trusted_proxies[2]: has no effect: unix is in unix of deny_networks",
    ]


def test_keys_about_files_where_every_stream_goes_to_stdout_are_warnings(here: Path) -> None:
    streams = 'access = { file = "-" }\ncalls = { file = "-" }\n'
    keys = 'rotate_size = "1MB"\nkeep = 3\nring = true\n'
    write(here, f'{GOOD}[logs]\n{keys}{streams}app = {{ file = "-" }}\n')
    result = CliRunner().invoke(main, ["check", "--json"])
    told = json.loads(result.stdout)["warnings"]
    assert [(each["line"], each["key"]) for each in told] == [
        (7, "logs.rotate_size"),
        (8, "logs.keep"),
        (9, "logs.ring"),
    ]
    assert {each["reason"] for each in told} == {"has no effect: it applies to files, and every stream goes to stdout"}
    write(here, f"{GOOD}[logs]\n{keys}{streams}")  # app has a file
    assert CliRunner().invoke(main, ["check"]).stderr == ""


def test_a_coding_whose_library_is_missing_is_a_mistake_or_of_the_default_a_warning(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (checks, compress_schema):
        monkeypatch.setattr(module, "is_available", lambda coding: coding == "gzip")
    write(here, GOOD + '[compress]\nalgorithms = ["br", "gzip"]\n')
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 78
    reason = "\"br\" needs a library that is not installed: pip install 'umbel[br]'"
    assert f"umbel.toml:7: compress.algorithms[0]: {reason}" in result.stderr
    write(here, GOOD + "[compress]\n")
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        f"warning: umbel.toml:6: compress: {coding} is left out of algorithms: to use it, pip install 'umbel[{coding}]'"
        for coding in ("br", "zstd")
    ]


def test_compress_in_a_route_without_the_section_is_a_warning(here: Path) -> None:
    write(here, GOOD.replace("[[routes]]\n", "[[routes]]\ncompress = true\n"))
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    assert "routes[0].compress: has no effect without the section [compress]" in result.stderr


def test_a_path_that_this_user_cannot_write_is_a_warning(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "theirs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode, *, effective_ids: "theirs" not in str(path))
    write(
        here,
        GOOD + '[logs]\ndir = "theirs/logs"\n',
        {"hypercorn.toml": 'bind = "unix:theirs/umbel.sock"\npid_path = "theirs/pid"\n'},
    )
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1:3] for line in lines] == [
        ["umbel.toml:7", "logs.dir"],
        ["hypercorn.toml:1", "bind"],
        ["hypercorn.toml:2", "pid_path"],
    ]
    assert all(
        f"{here}/theirs is not writable for the user of this process (uid {os.geteuid()})" in line for line in lines
    )
    assert not (here / "theirs" / "logs").exists()


def test_a_request_field_of_cors_that_the_server_refuses_is_a_mistake(here: Path) -> None:
    cors = 'origins = ["https://app.example"], headers = ["x-a", "X_Tenant"]'
    tables = f"cors = {{ {cors} }}\n{GOOD}cors = {{ {cors} }}\n"
    write(here, tables)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 78
    assert [line.partition(': a request with "x_tenant" gets 400')[0] for line in result.stderr.splitlines()] == [
        "umbel.toml:1: cors.headers[1]",
        "umbel.toml:7: routes[0].cors.headers[1]",
    ]
    write(here, tables + '[server]\nunderscore_headers = "keep"\n')
    assert CliRunner().invoke(main, ["check"]).exit_code == 0


def test_fields_of_a_route_that_cors_or_headers_overrides_are_warnings(here: Path) -> None:
    answer = (
        'answer.headers = { "Access-Control-Allow-Origin" = "*", x-a = "1" }\n'
        'answer.forward_headers = { c = ["x-b", "access-control-expose-headers", "x-c"] }\n'
    )
    tables = '[cors]\norigins = ["https://app.example"]\n[headers]\nset = { x-a = "2" }\nremove = ["x-b"]\n'
    write(here, f"{tables}{GOOD}{answer}")
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 0
    assert [line.partition(" has no effect: ")[::2] for line in result.stderr.splitlines()] == [
        (
            "warning: umbel.toml:11: routes[0].answer.headers.access-control-allow-origin:"
            ' "access-control-allow-origin"',
            "[cors] writes this field; write cors = false to do without it",
        ),
        (
            'warning: umbel.toml:11: routes[0].answer.headers.x-a: "x-a"',
            "set of [headers] replaces this field in every response",
        ),
        (
            'warning: umbel.toml:12: routes[0].answer.forward_headers.c[0]: "x-b"',
            "[headers] removes this field from every response",
        ),
        (
            'warning: umbel.toml:12: routes[0].answer.forward_headers.c[1]: "access-control-expose-headers"',
            "[cors] writes this field; write cors = false to do without it",
        ),
    ]
    write(here, f"{tables}{GOOD}cors = false\n{answer}")
    assert CliRunner().invoke(main, ["check"]).stderr.count("[cors]") == 0
