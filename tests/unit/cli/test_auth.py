"""``umbel auth``: keys that are made, and digests of existing ones."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from umbel.auth.key_file import read_key_file
from umbel.cli import main


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["auth", *arguments], input=stdin)


def test_a_new_key_is_on_stdout_and_its_table_on_stderr(tmp_path: Path) -> None:
    result = run("new-key", 'née "acme"', "--scope", "a:read", "--scope", "b", "--expires", "2999-01-31")
    (key,) = result.stdout.splitlines()
    assert key.startswith("uk_")
    assert len(key) == 46
    assert key not in result.stderr
    (tmp_path / "keys.toml").write_text(result.stderr)
    (read,) = read_key_file(str(tmp_path / "keys.toml")).keys
    assert (read.id, read.scopes) == ('née "acme"', ("a:read", "b"))
    assert read.digest == hashlib.sha256(key.encode()).digest()
    assert tomllib.loads(result.stderr)["keys"][0]["expires"].isoformat() == "2999-01-31"


def test_keys_differ_and_json_has_key_and_table() -> None:
    first, second = (json.loads(run("new-key", "acme", "--json", "--expires", "2999-01-31").stdout) for _ in range(2))
    assert first["key"] != second["key"]
    assert first["sha256"] == hashlib.sha256(first["key"].encode()).hexdigest()
    assert (first["id"], first["scopes"], first["expires"]) == ("acme", [], "2999-01-31")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([" acme"], "needs a text of at most 64 printable characters"),
        (["acme", "--scope", "a b"], "needs a list of scopes"),
        (["acme", "--expires", "tomorrow"], "write a date such as 2027-01-31"),
        (["acme", "--expires", "2020-01-31T00:00:00Z"], "is past"),
    ],
)
def test_a_wrong_argument_makes_no_key(arguments: list[str], reason: str) -> None:
    result = run("new-key", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert reason in result.stderr


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_digest_is_of_the_key_without_its_line_end(end: bytes) -> None:
    result = run("hash", stdin=b"caf\xe9 key" + end)
    assert (result.exit_code, result.stdout) == (0, hashlib.sha256(b"caf\xe9 key").hexdigest() + "\n")


@pytest.mark.parametrize("key", [b"", b"a,b", b"a\nb", b" a", b"a" * 1025])
def test_a_key_that_no_request_can_present_has_no_digest(key: bytes) -> None:
    result = run("hash", stdin=key)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "a key " in result.stderr
