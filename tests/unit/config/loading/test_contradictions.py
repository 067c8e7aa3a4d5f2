"""Contradictions: one case per rule, with the exact warning of ``umbel check``."""

# ruff: noqa: E501 - golden lines are as long as what people see

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.gateway.configs import CALL, GOOD, ROUTE, UPSTREAM, write
from umbel.cli import main
from umbel.config.loading import contradictions
from umbel.config.schema.reference.default_reasons import REASONS
from umbel.config.schema.section_tree import all_sections, keys_of
from umbel.config.schema.sections import Config

EACH = 'query = ["a"]\ncalls.c = { upstream = "u", path = "/{item}", each = "query.a", %s }\n'
LINES: dict[str, tuple[str, list[str]]] = {
    "a route's body above the server's": (
        GOOD + 'max_body = "50MB"\n',
        ["6: routes[0].max_body: is 50MB, but [server] max_body is 16MiB: a larger one gets 413"],
    ),
    "a default body of all routes above the server's": (
        GOOD + '[defaults.route]\nmax_body = "50MB"\n',
        ["7: defaults.route.max_body: is 50MB, but [server] max_body is 16MiB: a larger one gets 413"],
    ),
    "a target above the head": (
        GOOD + '[server]\nmax_target = "32KiB"\n',
        ["7: server.max_target: is 32KiB, but the whole head may have only max_head, 16KiB"],
    ),
    "uploads above the memory limit": (
        GOOD + 'max_body = "1MiB"\n[server]\nmemory_limit = "60MiB"\n',
        [
            "8: server.memory_limit: is 60MiB, but max_uploads bodies of max_body can take 64MiB: requests are refused long before that"
        ],
    ),
    "a call's timeout above the default deadline": (
        UPSTREAM + ROUTE + 'calls.c = { upstream = "u", path = "/", timeout = "6s" }\n',
        ["5: routes[0].calls.c.timeout: is 6s, but the deadline of /r is 5s, and ends the call first"],
    ),
    "an upstream's timeout above the deadlines of two routes": (
        UPSTREAM + 'timeout = "30s"\n' + ROUTE + CALL + '[[routes]]\npath = "/s"\ndeadline = "2s"\n' + CALL,
        [
            "3: upstreams.u.timeout: is 30s, but the deadline of /s (and 1 more route) is 2s, and ends the call first; write a longer deadline or a shorter timeout"
        ],
    ),
    "a connect timeout above the call's timeout": (
        UPSTREAM + 'timeout = "1s"\nconnect_timeout = "2s"\n' + ROUTE + CALL,
        ["4: upstreams.u.connect_timeout: is 2s, but a call of /r may take only 1s"],
    ),
    "waits of retries above the call's timeout, and a backoff above max_backoff": (
        UPSTREAM + 'retry = { attempts = 4, backoff = "3s", max_backoff = "2s" }\n' + ROUTE + CALL,
        [
            "3: upstreams.u.retry: has waits of up to 6s between its attempts, but a call of /r may take only 5s",
            "3: upstreams.u.retry.backoff: is 3s, but no wait is longer than max_backoff, 2s",
        ],
    ),
    "a second hedge after the call's timeout": (
        UPSTREAM + ROUTE + 'deadline = "1s"\n'
        'calls.c = { upstream = "u", path = "/", hedge = { after = "500ms", max = 2 } }\n',
        ["6: routes[0].calls.c.hedge.after: comes after 1s, but a call of /r may take only 1s: it is never made"],
    ),
    "more waiting requests than are served at once": (
        UPSTREAM + "max_queue = 300\n" + ROUTE + CALL,
        ["3: upstreams.u.max_queue: is 300, but no more than max_in_flight, 256, requests are served at once"],
    ),
    "a limit of items above max_concurrency and max_items": (
        UPSTREAM + "max_concurrency = 4\n" + ROUTE + EACH % "limit = 8, max_items = 6",
        [
            "3: upstreams.u.max_concurrency: is 4, but one request to /r makes up to 8 calls at once: some of them must wait",
            "7: routes[0].calls.c.limit: is 8, but no list of this call has more than max_items, 6",
            "7: routes[0].calls.c.limit: is 8, but the upstream's max_concurrency is 4",
        ],
    ),
    "an ejection share below one replica": (
        '[upstreams.u]\nurls = ["http://a", "http://b", "http://c"]\nejection = { share = "30%" }\n' + ROUTE + CALL,
        ["3: upstreams.u.ejection.share: is 30%, but one replica is 1 of 3: no replica is ever ejected"],
    ),
    "a deadline above graceful_timeout": (
        GOOD + 'deadline = "30s"\n',
        [
            "6: routes[0].deadline: is 30s, but graceful_timeout of hypercorn.toml is 20s: a stop cancels requests that take longer"
        ],
    ),
    "max_rss above the memory at which a worker refuses requests": (
        GOOD + '[server]\nmemory_limit = "2GB"\n[supervisor]\nmax_rss = "2GB"\n',
        [
            "9: supervisor.max_rss: is 2GB, but from 1900MB on (95 % of [server] memory_limit) a worker refuses requests and does not grow"
        ],
    ),
    "max_lifetime not above start_timeout": (
        GOOD + '[supervisor]\nmax_lifetime = "30s"\n',
        ["7: supervisor.max_lifetime: is 30s, but a worker is replaced at the age of max_lifetime, 30s"],
    ),
    "log files removed before keep_days, and keep_bytes below one file": (
        GOOD + '[logs]\nkeep_days = 30\nrotate_every = "1d"\nkeep_bytes = "1MB"\ncompress = "none"\n',
        [
            "7: logs.keep_days: is 30 days, but keep files of rotate_every each cover only 10d, and older files are removed",
            "9: logs.keep_bytes: is 1MB, but a rotated file may have rotate_size, 100MB, and is not compressed: it would be removed",
        ],
    ),
    "slow above every deadline": (
        GOOD + '[logs]\ncalls.slow = "1m"\n',
        ["7: logs.calls.slow: is 1m, but the longest deadline of a route is 5s: nothing is that slow"],
    ),
    "times of a proxy route above its max_lifetime": (
        UPSTREAM
        + ROUTE
        + '[routes.proxy]\nupstream = "u"\nmax_lifetime = "1m"\nidle_timeout = "2m"\nfirst_byte = "90s"\n',
        [
            "8: routes[0].proxy.idle_timeout: is 2m, but max_lifetime is 1m, and ends the request first",
            "9: routes[0].proxy.first_byte: is 90s, but max_lifetime is 1m, and ends the request first",
        ],
    ),
    "a connect timeout above first_byte": (
        UPSTREAM + 'connect_timeout = "5s"\n' + ROUTE + 'proxy = { upstream = "u", first_byte = "2s" }\n',
        ["3: upstreams.u.connect_timeout: is 5s, but first_byte of /r is only 2s"],
    ),
    "no-store beside max-age": (
        GOOD + 'answer.cache_control = "no-store, max-age=60"\n',
        ["6: routes[0].answer.cache_control: has no-store and max-age: a response that is not stored has no age"],
    ),
    "private beside s-maxage": (
        GOOD + 'answer.cache_control = "private, s-maxage=60"\n',
        [
            "6: routes[0].answer.cache_control: has private and s-maxage: private forbids shared caches, so s-maxage has no effect"
        ],
    ),
}


@pytest.mark.parametrize("what", LINES)
def test_a_contradiction_is_a_warning_with_its_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, lines = LINES[what]
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["check"])
    assert result.stderr.splitlines() == [f"warning: umbel.toml:{line}" for line in lines]
    assert result.exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD + '[server]\nmax_body = "100KB"\nmax_in_flight = 8\n',
        UPSTREAM + 'timeout = "500ms"\nretry = {}\n' + ROUTE + CALL,
        UPSTREAM + 'timeout = "30s"\n' + ROUTE + 'calls.c = { upstream = "u", path = "/", timeout = "1s" }\n',
        UPSTREAM + 'hedge = { after = "p95" }\n' + ROUTE + CALL,
        UPSTREAM + 'max_concurrency = "auto"\n' + ROUTE + EACH % "limit = 50",
        GOOD + 'answer.cache_control = "public, max-age=60, s-maxage=600"\n',
        GOOD + '[logs]\nkeep_bytes = "1MB"\n',
    ],
)
def test_bounds_that_agree_cause_no_warning(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["check"]).stderr == ""


def test_the_timeout_of_an_upstream_of_proxy_routes_contradicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = ROUTE + 'proxy = { upstream = "u" }\n[logs]\ncalls.slow = "1m"\n'
    write(tmp_path, UPSTREAM + 'timeout = "30s"\n' + proxy)
    monkeypatch.chdir(tmp_path)
    (warning,) = CliRunner().invoke(main, ["check"]).stderr.splitlines()
    assert "upstreams.u.timeout: has no effect: only proxy routes use u" in warning


def test_both_files_are_compared_and_each_warning_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = "graceful_timeout = 1\nssl_handshake_timeout = 9\nh2_max_concurrent_streams = 300\nstartup_timeout = 60\n"
    write(tmp_path, GOOD, {"hypercorn.toml": served})
    monkeypatch.chdir(tmp_path)
    lines = CliRunner().invoke(main, ["check"]).stderr.splitlines()
    assert [line.partition(": is ")[0] for line in lines] == [
        "warning: hypercorn.toml:2: ssl_handshake_timeout",
        "warning: hypercorn.toml:3: h2_max_concurrent_streams",
        "warning: hypercorn.toml:4: startup_timeout",
    ]


def test_warnings_are_in_the_json_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, GOOD + 'max_body = "50MB"\n')
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["check", "--json"])
    assert '"warnings": [{"file": "umbel.toml", "line": 6, "key": "routes[0].max_body"' in result.stdout
    assert result.stderr == ""


ALONE = {
    # Bounds of separate things, or pairs of which the lower one is simply in force.
    *("server." + key for key in ("body_timeout", "min_body_rate", "write_timeout", "max_connections", "max_fields")),
    *("server." + key for key in ("max_streams", "drain_delay", "cancel_timeout")),
    *("supervisor." + key for key in ("hang_timeout", "orphan_grace", "restart_max_delay")),
    *("intensity.restarts", "intensity.window", "limit.burst", "limit.max_keys", "limit.sync"),
    *("upstream." + key for key in ("keepalive_expiry", "max_body", "max_head", "max_fields", "retry_budget")),
    "upstream.max_streams",
    *("breaker." + key for key in ("window", "min_requests", "failure_ratio", "open_for")),
    *("ejection." + key for key in ("failures", "base", "max")),  # A base above max is a mistake.
    *("health." + key for key in ("every", "healthy", "unhealthy")),
    *(
        "weightedurl.weight",
        "compress.min",
        "call.max_body",
        "route.quorum",
        "cors.max_age",
        "route.max_steps",
        "answer.status",
        "respond.status",
        "respond.delay",
        "proxy.max_body",
        "mirror.share",
    ),  # A quorum that is too high is a mistake, and so is a delay of more than the deadline.
    *("logs.max_queue_bytes", "logs.max_queue_records", "logs.flush_every"),
    *("jwtauth." + key for key in ("leeway", "refresh", "stale_if_error", "unknown_kid_cooldown", "cache")),
    *("logstream.sample", "accesslogstream.sample", "callslogstream.sample", "traces.sample"),
}
LISTS = {
    *(("Call", key) for key in ("ok", "null_on", "pass_status", "split")),
    *(("Retry", "on"), ("QueryParam", "default"), ("Hedge", "after"), ("Proxy", "split")),
}
"""Keys whose type allows a number, and whose value is none."""
PARTS = {
    # Parts of computed quantities.
    *("server.max_uploads", "retry.attempts", "hedge.max", "logs.rotate_every", "logs.keep"),
    *("logstream.slow", "accesslogstream.slow", "callslogstream.slow", "traces.slow"),
}


def numbers_of_the_schema() -> set[str]:
    numbers = set()
    for place in all_sections():
        for key, field in keys_of(place.model).items():
            shown = str(place.model.model_fields[field].annotation)
            if ("int" in shown or "float" in shown) and "bool" not in shown and "JsonScalar" not in shown:
                numbers.add(f"{place.model.__name__}.{key}")
    return numbers - {f"{section}.{key}" for section, key in LISTS}


def test_every_number_of_the_schema_is_compared_or_excluded() -> None:
    numbers = {name.partition(".")[0].lower() + "." + name.partition(".")[2] for name in numbers_of_the_schema()}
    compared = {name for row in contradictions.RULES for name in (row.key, row.bound)}
    assert numbers - compared - ALONE - PARTS == set()


def test_every_number_with_a_default_has_a_reason() -> None:
    without_default = {"Route.quorum", "Call.timeout", "Call.max_body", "Mirror.share", "Limit.burst"}
    assert numbers_of_the_schema() - without_default == set(REASONS)


def test_a_configuration_made_in_code_is_checked_without_lines() -> None:
    config = Config.model_validate({"server": {"max_target": "32KiB"}})
    ((path, reason),) = contradictions.check(config)
    assert path == ("server", "max_target")
    assert reason.startswith("is 32KiB")
