"""``umbel auth``: keys that are made, and digests of existing ones."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from umbel.auth.keys.key_file import read_key_file
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


OTHER = f'[[keys]]\nid = "globex"\nsha256 = "{"ab" * 32}"\n'


@pytest.mark.parametrize(
    ("before", "ids"),
    [
        (None, ["acme"]),
        ("", ["acme"]),
        ("# the partners", ["acme"]),
        ("keys = []", ["acme"]),
        ("# none yet\nkeys=[ ] # nobody\n", ["acme"]),
        (OTHER, ["globex", "acme"]),
        (OTHER.removesuffix("\n"), ["globex", "acme"]),
        (OTHER.replace("\n", "\r\n"), ["globex", "acme"]),
        (f"\ufeff{OTHER}# end", ["globex", "acme"]),
        (OTHER.replace("globex", "acme"), ["acme", "acme"]),
    ],
)
def test_a_new_key_is_added_to_a_file(before: str | None, ids: list[str], tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    if before is not None:
        file.write_bytes(before.encode())
        file.chmod(0o640)
    result = run("new-key", "acme", "--scope", "a", "--expires", "2999-01-31", "--file", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    keys = read_key_file(str(file)).keys
    assert [key.id for key in keys] == ids
    assert keys[-1].digest == hashlib.sha256(result.stdout.removesuffix("\n").encode()).digest()
    assert keys[-1].scopes == ("a",)
    assert file.stat().st_mode & 0o7777 == (0o600 if before is None else 0o640)
    assert [*tmp_path.iterdir()] == [file]
    assert result.stdout.strip() not in file.read_text()
    assert before is None or before.partition("keys")[0].strip("\ufeff") in file.read_text()


def test_two_keys_are_added_one_after_the_other_and_through_a_link(tmp_path: Path) -> None:
    link, file = tmp_path / "link.toml", tmp_path / "keys.toml"
    link.symlink_to("keys.toml")
    assert [run("new-key", name, "--file", str(link)).exit_code for name in ("a", "b")] == [0, 0]
    assert [key.id for key in read_key_file(str(file)).keys] == ["a", "b"]
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("Usage: umbel auth new-key", "keys.toml: 1: is not TOML, at column 6"),
        ("[[keys]]\nid = 3\n", "keys.toml: 1: keys[0]: needs the SHA-256 of the key"),
        (OTHER + "[server]\n", "has a key that is not known here"),
        (
            f'keys = [{{ id = "a", sha256 = "{"ab" * 32}" }}]',
            "has its keys as a list in brackets; write each as a table",
        ),
        ("keys = [\n]\n", "has its keys as a list in brackets; write each as a table"),
    ],
)
def test_a_file_with_a_mistake_is_left_alone_and_gets_no_key(before: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(before)
    result = run("new-key", "acme", "--file", str(file))
    assert (result.exit_code, result.stdout, file.read_text()) == (1, "", before)
    assert "no key was made: " in result.stderr
    assert reason in result.stderr
    assert [*tmp_path.iterdir()] == [file]


def test_a_file_that_cannot_be_written_gets_no_key(tmp_path: Path) -> None:
    for place, reason in (("none/keys.toml", "there is no such file"), ("", "it is a directory")):
        result = run("new-key", "acme", "--file", str(tmp_path / place))
        assert (result.exit_code, result.stdout) == (1, "")
        assert reason in result.stderr


def test_a_key_is_not_added_while_another_command_adds_one(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        result = run("new-key", "acme", "--file", str(tmp_path / "keys.toml"))
    finally:
        os.close(descriptor)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "another command is changing the files" in result.stderr


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_digest_is_of_the_key_without_its_line_end(end: bytes) -> None:
    result = run("hash", stdin=b"caf\xe9 key" + end)
    assert (result.exit_code, result.stdout) == (0, hashlib.sha256(b"caf\xe9 key").hexdigest() + "\n")


@pytest.mark.parametrize("key", [b"", b"a,b", b"a\nb", b" a", b"a" * 1025])
def test_a_key_that_no_request_can_present_has_no_digest(key: bytes) -> None:
    result = run("hash", stdin=key)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "a key " in result.stderr


def test_a_key_that_cannot_be_printed_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(click, "echo", full)
    (tmp_path / "keys.toml").write_text("keys = []\n")
    with pytest.raises(click.ClickException, match="no key was made: it cannot be printed: No space left on device"):
        main(["auth", "new-key", "acme", "--file", str(tmp_path / "keys.toml")], standalone_mode=False)
    assert (tmp_path / "keys.toml").read_text() == "keys = []\n"
    assert [each.name for each in tmp_path.iterdir()] == ["keys.toml"]


def test_a_file_that_would_be_too_large_says_so(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("#" * 999_990 + "\n")
    result = CliRunner().invoke(main, ["auth", "new-key", "acme", "--file", str(tmp_path / "keys.toml")])
    assert result.exit_code == 1
    assert "would be larger than 1 MB with one more key" in result.output
