"""Messages about files that cannot be used, includes and variables; no message shows a secret."""

from __future__ import annotations

import datetime
import errno
import os
import socket
from pathlib import Path

import pytest
import trustme

from tests.support.gateway.configs import CALL, GOOD, ROUTE, UPSTREAM, mistakes
from umbel.config.loading import file_reader
from umbel.config.loading.file_loader import INCLUDES_MAX
from umbel.config.loading.file_reader import SIZE_MAX
from umbel.config.loading.load import load
from umbel.core.errors import ConfigError


def said_of(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    return str(caught.value)


def test_a_missing_main_file_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said_of("umbel.toml") == "umbel.toml: cannot be read: there is no such file"


def test_a_directory_as_the_main_file_is_reported(tmp_path: Path) -> None:
    assert said_of(tmp_path) == f"{tmp_path}: cannot be read: it is a directory"


def test_a_device_as_the_main_file_is_reported() -> None:
    assert said_of("/dev/zero") == "/dev/zero: cannot be read: it is a device, not a regular file"


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "umbel.toml")
    assert said_of(tmp_path / "umbel.toml").endswith(
        "umbel.toml: cannot be read: it is a named pipe, not a regular file"
    )


def test_an_included_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.toml")
    assert mistakes(tmp_path, 'include = ["*.toml"]\n') == [
        "a.toml: cannot be read: it is a named pipe, not a regular file"
    ]


def test_a_socket_as_the_main_file_is_reported(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "umbel.toml"))
        assert said_of(tmp_path / "umbel.toml").endswith("cannot be read: it is a socket, not a regular file")


def test_a_file_above_the_size_limit_is_reported(tmp_path: Path) -> None:
    with (tmp_path / "umbel.toml").open("wb") as file:
        file.truncate(SIZE_MAX + 1)
    assert said_of(tmp_path / "umbel.toml").endswith(f"umbel.toml: is larger than {SIZE_MAX // 2**20}MiB")


def test_a_name_that_no_file_can_have_is_reported() -> None:
    assert said_of("a\0b") == r"a\x00b: cannot be read: no file can have this name"


def test_a_symbolic_link_to_itself_is_reported(tmp_path: Path) -> None:
    link = tmp_path / "umbel.toml"
    link.symlink_to(link)
    assert said_of(link).endswith("umbel.toml: cannot be read: too many levels of symbolic links")


def test_a_file_without_read_permission_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> int:  # Mode bits have no effect for root.
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(file_reader, "open_regular", refuse)
    assert said_of(tmp_path / "umbel.toml").endswith("umbel.toml: cannot be read: permission denied")


def test_a_file_that_is_not_utf8_is_reported_with_its_line(tmp_path: Path) -> None:
    said = mistakes(tmp_path, 'include = ["a.toml"]\n', {"a.toml": b"# one\n# two \xff\n"})
    assert said == ["a.toml:2: is not UTF-8 text"]


def test_include_patterns_that_match_nothing_are_reported(tmp_path: Path) -> None:
    text = 'include = ["x.toml", "y/*.toml", ".", "a\\u0000*", "d*"]\n'
    assert mistakes(tmp_path, text, {"dir/x": ""}) == [
        f"umbel.toml:1: include[{index}]: no file matches this pattern, which is relative to the file that it is in"
        for index in range(5)
    ]


def test_mistakes_in_many_files_are_in_the_order_of_reading(tmp_path: Path) -> None:
    files = {"b.toml": "banana = 1\n", "a.toml": "x\n", "c/d.toml": '[[routes]]\npath = "/"\n'}
    assert mistakes(tmp_path, 'include = ["*.toml", "c/*.toml"]\n[server]\nbanana = 1\n', files) == [
        "umbel.toml:3: server.banana: is not a key of [server]",
        "a.toml:1: is not TOML: expected '=' after a key in a key/value pair, at column 2",
        "b.toml:1: banana: is not a section",
        "c/d.toml:1: routes[0].calls: a route needs calls, or one of answer.shape, respond, redirect and proxy",
    ]


def test_includes_above_the_depth_limit_are_reported(tmp_path: Path) -> None:
    files = {f"a{number}.toml": f'include = ["a{number + 1}.toml"]\n' for number in range(600)}
    said = mistakes(tmp_path, 'include = ["a0.toml"]\n', files)
    where = f"a{INCLUDES_MAX - 1}.toml:1: include[0]"
    assert said == [f"{where}: files include each other more than {INCLUDES_MAX} levels deep"]


def test_a_section_of_the_main_file_in_an_included_one_is_reported(tmp_path: Path) -> None:
    files = {"a.toml": "[server]\n[logs]\n[defaults.route]\n[admin]\n"}
    assert mistakes(tmp_path, 'include = ["a.toml"]\n', files) == [
        f"a.toml:{line}: {key}: belongs in the main file, umbel.toml; remove it from this file"
        for line, key in ((1, "server"), (2, "logs"), (3, "defaults"), (4, "admin"))
    ]


def test_an_upstream_defined_in_two_files_is_reported(tmp_path: Path) -> None:
    files = {"a.toml": "# again\n" + UPSTREAM}
    assert mistakes(tmp_path, 'include = ["a.toml"]\n' + GOOD, files) == [
        "a.toml:2: upstreams.u: is already defined at umbel.toml:2"
    ]


def test_a_route_defined_in_two_files_is_reported(tmp_path: Path) -> None:
    files = {"a.toml": ROUTE + CALL}
    assert mistakes(tmp_path, 'include = ["a.toml"]\n' + GOOD, files) == [
        "a.toml:2: routes[0].path: GET /r is a route already, at umbel.toml:5; remove one of them"
    ]


def test_a_wrong_default_that_two_files_inherit_is_reported_once(tmp_path: Path) -> None:
    files = {"a.toml": ROUTE + CALL, "b.toml": '[[routes]]\npath = "/b"\n' + CALL}
    text = 'include = ["?.toml"]\n[defaults.route]\nanswer.shape = "nope"\n' + UPSTREAM
    said = mistakes(tmp_path, text, files)
    assert len(said) == 1
    assert said[0].startswith("umbel.toml:3: defaults.route.answer.shape: ")


@pytest.fixture(scope="module")
def pems() -> dict[str, bytes]:
    authority = trustme.CA()
    cert, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    return {
        "ca.pem": authority.cert_pem.bytes(),
        "cert.pem": b"".join(blob.bytes() for blob in cert.cert_chain_pems),
        "key.pem": cert.private_key_pem.bytes(),
        "other.pem": other.private_key_pem.bytes(),
        "text.pem": b"hello\n",
    }


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('ca = "ca.pem", cert = "cert.pem", key = "key.pem"', []),
        ('ca = "no.pem"', ["ca: the file cannot be read: there is no such file"]),
        ('ca = "."', ["ca: the file cannot be read: it is a directory"]),
        ('ca = "text.pem"', ["ca: the file holds no certificate in PEM form"]),
        ('cert = "cert.pem", key = "other.pem"', ["key: the key does not belong to the certificate in cert"]),
        ('cert = "cert.pem", key = "text.pem"', ["key: the file holds no key in PEM form, or an encrypted one"]),
        ('cert = "text.pem", key = "key.pem"', ["cert: the file holds no certificate in PEM form"]),
        (
            'ca = "no.pem", cert = "no.pem", key = "no.pem"',
            [f"{key}: the file cannot be read: there is no such file" for key in ("ca", "cert", "key")],
        ),
    ],
)
def test_unusable_tls_files_are_reported(table: str, said: list[str], pems: dict[str, bytes], tmp_path: Path) -> None:
    text = f'[upstreams.u]\nurls = ["https://h"]\ntls = {{ {table} }}\n'
    assert mistakes(tmp_path, text, pems) == [f"umbel.toml:3: upstreams.u.tls.{line}" for line in said]


def test_an_encrypted_key_is_refused_without_asking_at_the_terminal(tmp_path: Path, pems: dict[str, bytes]) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    key = pem.load_pem_private_key(pems["key.pem"], None)
    locked = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret"))
    text = '[upstreams.u]\nurls = ["https://h"]\ntls = { cert = "cert.pem", key = "locked.pem" }\n'
    assert mistakes(tmp_path, text, pems | {"locked.pem": locked}) == [
        "umbel.toml:3: upstreams.u.tls.key: the file holds no key in PEM form, or an encrypted one"
    ]


def test_tls_files_of_an_upstream_with_other_mistakes_are_checked(tmp_path: Path) -> None:
    text = '[upstreams.u]\nurls = []\ntls.ca = "no.pem"\n'
    assert mistakes(tmp_path, text) == [
        "umbel.toml:2: upstreams.u.urls: must not be empty",
        "umbel.toml:3: upstreams.u.tls.ca: the file cannot be read: there is no such file",
    ]


def test_unset_and_malformed_variables_are_reported(tmp_path: Path) -> None:
    form = '"${" must begin a variable, ${NAME}, ${NAME:-default} or ${file:PATH}; write $${ for the two characters ${'
    text = UPSTREAM + 'headers = { a = "${NOPE}", b = "${1}", c = "${", d = "${X" }\ntimeout = "${NOPE}"\n'
    unset = "the environment variable NOPE is not set; set it, or write ${NOPE:-default}"
    assert mistakes(tmp_path, text) == [
        f"umbel.toml:3: upstreams.u.headers.a: {unset}",
        f"umbel.toml:3: upstreams.u.headers.b: {form}",
        f"umbel.toml:3: upstreams.u.headers.c: {form}",
        f"umbel.toml:3: upstreams.u.headers.d: {form}",
        f"umbel.toml:4: upstreams.u.timeout: {unset}",
    ]


def test_an_unset_variable_causes_no_further_mistake(tmp_path: Path) -> None:
    text = (
        'include = ["${NOPE}"]\n[upstreams.u]\nurls = ["${NOPE}"]\n' + ROUTE + 'methods = ["${NOPE}"]\n'
        'calls.c = { upstream = "u", path = "${NOPE}", optional = true, default = [["${NOPE}"]] }\n'
    )
    said = mistakes(tmp_path, text)
    assert [line.split(": ")[1] for line in said] == [
        "include[0]",
        "upstreams.u.urls[0]",
        "routes[0].methods[0]",
        "routes[0].calls.c.default[0][0]",
        "routes[0].calls.c.path",
    ]
    assert {line.split(": ", 2)[2] for line in said} == {
        "the environment variable NOPE is not set; set it, or write ${NOPE:-default}"
    }


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "text",
    [
        'urls = ["http://user:${S}@h"]',
        'urls = ["${S}"]',
        'urls = ["http://h/?key=${S}"]',
        'urls = ["http://h"]\ntimeout = "${S}"',
        'urls = ["http://h"]\nmax_body = "${S}"',
        'urls = ["http://h"]\nmax_queue = "${S}"',
        'urls = ["http://h"]\nheaders = { x = "{${S}" }',
        'urls = ["http://h"]\nparams = { x = "${S} !!" }',
        'urls = ["http://h"]\ntls.ca = "${S}"',
        'urls = ["http://h"]\n[routes]\npath = "${S}"',
        'urls = ["http://h"]\n[server]\ntrusted_proxies = ["${S}"]',
        'urls = ["http://h"]\n[[routes]]\npath = "${S}"\nmethods = ["${S}"]\ncalls.c = { upstream = "u", path = "" }',
        'urls = ["http://h"]\n[[routes]]\npath = "/<${S}:x>"\ncalls.c = { upstream = "${S}", path = "/{${S}}" }',
    ],
)
def test_no_message_shows_a_value_of_the_environment(text: str, tmp_path: Path) -> None:
    route = "" if "routes" in text else ROUTE + CALL
    said = mistakes(tmp_path, f"[upstreams.u]\n{text}\n{route}", environ={"S": SECRET})
    assert said != []
    assert "hunter2" not in "\n".join(said)


def test_no_message_shows_the_credentials_of_a_url(tmp_path: Path) -> None:
    urls = ["http://u:hunter2@h", "u:hunter2@h", "ftp://u:hunter2@h", "https://hunter2@h:x", "http://h?key=hunter2"]
    said = mistakes(tmp_path, f"[upstreams.u]\nurls = {urls}\n")
    assert len(said) == len(urls)
    assert "hunter2" not in "\n".join(said)


@pytest.mark.parametrize("year", [1971, 2001, 2049])
def test_an_expired_certificate_is_reported(year: int, tmp_path: Path) -> None:
    end = datetime.datetime(year, 7, 1, tzinfo=datetime.UTC)
    leaf = trustme.CA().issue_cert("h", not_before=end - datetime.timedelta(days=1), not_after=end)
    files = {"cert.pem": leaf.cert_chain_pems[0].bytes(), "key.pem": leaf.private_key_pem.bytes()}
    text = '[upstreams.u]\nurls = ["https://h"]\ntls = { ca = "cert.pem", cert = "cert.pem", key = "key.pem" }\n'
    said = [
        f"umbel.toml:3: upstreams.u.tls.{key}: the certificate has expired, on {year}-07-01" for key in ("ca", "cert")
    ]
    assert mistakes(tmp_path, text, files) == (said if year < 2026 else [])


def test_an_expired_certificate_beside_a_valid_one_is_accepted(tmp_path: Path, pems: dict[str, bytes]) -> None:
    past = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    old = trustme.CA().issue_cert("h", not_before=past, not_after=past + datetime.timedelta(days=1))
    files = {"ca.pem": b"# old\n" + old.cert_chain_pems[0].bytes() + pems["ca.pem"]}
    assert mistakes(tmp_path, '[upstreams.u]\nurls = ["https://h"]\ntls.ca = "ca.pem"\n', files) == []


@pytest.mark.parametrize("key", ["ca", "cert", "key"])
def test_a_pipe_in_the_place_of_a_certificate_is_refused_without_waiting(key: str, tmp_path: Path) -> None:
    trustme.CA().issue_cert("h").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "good.pem"))
    os.mkfifo(tmp_path / "pipe")
    files = {"cert": "good.pem", "key": "good.pem", key: "pipe"}
    tls = ", ".join(f'{name} = "{file}"' for name, file in files.items())
    said = mistakes(tmp_path, GOOD.replace('urls = ["http://h"]', f'urls = ["https://h"]\ntls = {{ {tls} }}'))
    assert said == [
        f"umbel.toml:3: upstreams.u.tls.{key}: the file cannot be read: it is a named pipe, not a regular file"
    ]
