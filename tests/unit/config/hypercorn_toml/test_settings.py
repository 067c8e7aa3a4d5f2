"""Loading of hypercorn.toml: every mistake is reported with its line and what to do."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from hypercorn.config import Config

from umbel.config.hypercorn_toml.keys import IN_UMBEL_TOML, WITHOUT_EFFECT, HypercornFile
from umbel.config.hypercorn_toml.settings import mistakes
from umbel.core.errors import ConfigError, ConfigProblem
from umbel.server import hypercorn_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hypercorn.toml"


def refused(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        hypercorn_config(file)
    return [str(problem).removeprefix(f"{file}:") for problem in error.value.problems]


def test_the_defaults_name_no_server_and_have_a_graceful_timeout() -> None:
    config = hypercorn_config()
    assert config.include_server_header is False
    assert config.graceful_timeout == 20
    assert config.accesslog is None
    assert config.bind == ["127.0.0.1:8000"]


def test_the_file_replaces_the_defaults_and_options_replace_the_file(file: Path) -> None:
    file.write_text('bind = ["127.0.0.1:1"]\ngraceful_timeout = 7\nworkers = 9\n')
    config = hypercorn_config(file)
    assert (config.bind, config.graceful_timeout, config.workers) == (["127.0.0.1:1"], 7, 1)
    assert hypercorn_config(file, bind=["127.0.0.1:2", "unix:/run/x"]).bind == ["127.0.0.1:2", "unix:/run/x"]


def test_paths_are_relative_to_the_file(file: Path) -> None:
    file.write_text(
        'bind = "unix:run/x.sock"\nerrorlog = "err.log"\npid_path = "/run/x.pid"\nlogconfig = "json:l.json"\n'
    )
    config = hypercorn_config(file)
    assert config.bind == [f"unix:{file.parent}/run/x.sock"]
    assert (config.errorlog, config.pid_path) == (f"{file.parent}/err.log", "/run/x.pid")
    assert config.logconfig == f"json:{file.parent}/l.json"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"bind = ", "is not TOML"), (b"\xff", "is not UTF-8"), (None, "cannot be read")]
)
def test_an_unreadable_file_is_one_line(file: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as error:
        hypercorn_config(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("graceful_timout = 3", 'graceful_timout: is not one of Hypercorn\'s keys; did you mean "graceful_timeout"?'),
        ("frobnicate = 1", "frobnicate: is not one of Hypercorn's keys"),
        ("[bind]", "bind: needs a text or a list, not a table"),
        ("max_body = 3", "max_body: belongs in [server] of umbel.toml, not here"),
        ("deadline = 3", "deadline: is not one of Hypercorn's keys; it belongs in [[routes]] of umbel.toml"),
        ('server_names = ["x"]', "server_names: belongs in umbel.toml; write hosts in its [server] instead"),
        ('keep_alive_timeout = "5s"', "keep_alive_timeout: needs a number, not a text"),
        ("graceful_timeout = -1", "graceful_timeout: must be a number of seconds, 0 or more"),
        ("graceful_timeout = nan", "graceful_timeout: must be a number of seconds, 0 or more"),
        ("startup_timeout = 0", "startup_timeout: must be a number of seconds, more than 0"),
        ("shutdown_timeout = 0.0", "shutdown_timeout: must be a number of seconds, more than 0"),
        ("ssl_handshake_timeout = -1", "ssl_handshake_timeout: must be a number of seconds, more than 0"),
        ("startup_timeout = inf", "startup_timeout: must be a number of seconds, more than 0 and at most 3153600000"),
        ("graceful_timeout = 1e12", "graceful_timeout: must be a number of seconds, 0 or more and at most 3153600000"),
        ("backlog = 2147483648", "backlog: must be at most 2147483647"),
        ("umask = 512", "umask: must be at most 511"),
        ("user = 4294967295", "user: must be at most 4294967294"),
        ("h2_max_concurrent_streams = 4294967296", "h2_max_concurrent_streams: must be at most 2147483647"),
        ("max_requests = 9223372036854775808", "max_requests: must be at most 9223372036854775807"),
        ("websocket_ping_interval = 0", "websocket_ping_interval: must be a number of seconds, more than 0"),
        ("backlog = 1.5", "backlog: needs a whole number, not a number with a point"),
        ("include_date_header = 1", "include_date_header: needs true or false, not a whole number"),
        ('worker_class = "asyncio"', 'worker_class: needs "trio", not "asyncio"'),
        ('bind = "127.0.0.1:65536"', None),
        ('bind = ["unix:"]', None),
        ('insecure_bind = ""', None),
        ('bind = "fd://x"', None),
        ('bind = "[::1:80"', None),
        ('bind = "[]:80"', None),
        ("bind = [1]", "bind: needs a text, not a whole number"),
    ],
)
def test_a_mistake_is_reported_with_its_line_and_what_to_do(file: Path, line: str, reason: str | None) -> None:
    (found,) = refused(file, f"# one\n{line}\n")
    assert found.startswith("2: ")
    if reason is None:
        assert "is not an address; write HOST:PORT" in found
    else:
        assert found == f"2: {reason}"


def test_all_mistakes_are_reported_in_the_order_of_their_lines(file: Path) -> None:
    found = refused(file, 'bnd = "x"\nworkers = "2"\nmax_body = 3\nbind = "x"\n')
    assert [each.split(": ")[:2] for each in found] == [
        ["1", "bnd"],
        ["2", "workers"],
        ["3", "max_body"],
        ["4", "bind"],
    ]


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:80", "localhost:65535", "unix:/run/x", "fd://3"])
def test_every_form_of_address_that_hypercorn_can_bind_is_accepted(file: Path, bind: str) -> None:
    file.write_text(f'bind = "{bind}"\n')
    assert hypercorn_config(file).bind == [bind]


def test_a_wrong_address_option_is_reported_with_the_mistakes_of_the_file(file: Path) -> None:
    file.write_text("bnd = 1\n")
    with pytest.raises(ConfigError) as error:
        hypercorn_config(file, bind=["nowhere"])
    assert [problem.file for problem in error.value.problems] == ["--bind", str(file)]


def test_a_key_for_the_hypercorn_command_is_a_warning_with_its_line(file: Path) -> None:
    file.write_text('accesslog = "-"\nbacklog = 7\nworkers = 4\n')
    warnings: list[ConfigProblem] = []
    assert hypercorn_config(file, warn=warnings.append).backlog == 7
    assert [(problem.line, problem.key) for problem in warnings] == [(1, "accesslog"), (3, "workers")]
    assert "is ignored here: the number of workers is the option -w of umbel serve" in str(warnings[1])


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ('errorlog = "-"\nloglevel = "INFO"\nlogconfig = "x"\n[logconfig_dict]\n', 4),
        ("include_server_header = true\n", 1),
        ('insecure_bind = "127.0.0.1:0"\nciphers = "x"\nverify_mode = 1\n', 3),
        ("user = 1\ngroup = 1\numask = 7\n", 3),
        ('bind = "unix:x"\nuser = 1\ngroup = 1\numask = 7\n', 0),
        ("workers = 1\n", 0),
        ('certfile = "a.pem"\nkeyfile = "a.key"\nca_certs = "a.pem"\n', 1),
        ('certfile = "a.pem"\nkeyfile = "a.key"\nca_certs = "a.pem"\nverify_mode = 0\n', 1),
        ('certfile = "a.pem"\nkeyfile = "a.key"\nca_certs = "a.pem"\nverify_mode = 2\n', 0),
    ],
)
def test_a_key_without_effect_beside_other_keys_is_a_warning(file: Path, text: str, keys: int) -> None:
    pair = trustme.CA().issue_cert("a.test")
    pair.cert_chain_pems[0].write_to_path(file.parent / "a.pem")
    pair.private_key_pem.write_to_path(file.parent / "a.key")
    file.write_text(text)
    warnings: list[ConfigProblem] = []
    hypercorn_config(file, warn=warnings.append)
    assert len(warnings) == keys
    assert all(str(problem).startswith(f"{file}:") and "is ignored here: " in problem.reason for problem in warnings)


def test_an_ignored_key_whose_value_holds_anyway_is_no_warning(file: Path) -> None:
    file.write_text("workers = 1\ninclude_server_header = false\n")
    warnings: list[ConfigProblem] = []
    hypercorn_config(file, warn=warnings.append)
    assert warnings == []


def test_a_certificate_without_its_key_is_refused(file: Path) -> None:
    (found,) = refused(file, 'certfile = "cert.pem"\n')
    assert found == "1: certfile: needs keyfile beside it, or nothing is encrypted"
    (found,) = refused(file, 'keyfile = "key.pem"\n')
    assert found == "1: keyfile: needs certfile beside it, or nothing is encrypted"


def test_certificates_are_checked_at_load(file: Path) -> None:
    for name in ("a", "b"):
        pair = trustme.CA().issue_cert(f"{name}.test")
        pair.cert_chain_pems[0].write_to_path(file.parent / f"{name}.pem")
        pair.private_key_pem.write_to_path(file.parent / f"{name}.key")
    file.write_text('certfile = "a.pem"\nkeyfile = "a.key"\nca_certs = "b.pem"\n')
    context = hypercorn_config(file).create_ssl_context()
    assert isinstance(context, ssl.SSLContext)
    (found,) = refused(file, 'certfile = "a.pem"\nkeyfile = "b.key"\n')
    assert found.startswith("2: keyfile: the key does not belong")
    (found,) = refused(file, 'certfile = "a.pem"\nkeyfile = "a.key"\nverify_mode = 1\n')
    assert found == (
        "3: verify_mode: needs ca_certs beside it, the authorities by which clients' certificates are verified"
    )
    found_two = refused(file, 'certfile = "nope.pem"\nkeyfile = "b.key"\nca_certs = "a.key"\n')
    assert [each[:12] for each in found_two] == ["1: certfile:", "3: ca_certs:"]


def test_every_key_of_hypercorn_is_in_the_schema() -> None:
    not_settings = {"log", "ssl_enabled", "logger_class", "cert_reqs"}  # the last one is deprecated
    keys = {name for name in dir(Config) if not name.startswith("_") and not callable(getattr(Config, name))}
    assert keys - not_settings <= HypercornFile.model_fields.keys() | IN_UMBEL_TOML.keys()
    assert set(HypercornFile.model_fields) - keys == {"application_path"}
    assert HypercornFile.model_fields.keys() >= WITHOUT_EFFECT.keys()
    assert not HypercornFile.model_fields.keys() & IN_UMBEL_TOML.keys()


def test_certain_mistakes_in_a_hypercorn_config_are_reported() -> None:
    config = Config.from_mapping(
        graceful_timout=3, backlog="7", server_names=["x"], bind="host", my_own="x", workers=2, keep_alive_timeout=9
    )
    assert mistakes(vars(config)) == [
        "backlog needs a whole number, not a text",
        'graceful_timout is not one of Hypercorn\'s keys; did you mean "graceful_timeout"?',
        "server_names belongs in umbel.toml; write hosts in its [server] instead",
    ]
    assert mistakes(vars(Config())) == []
