"""API keys: verification, and the file that is read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio

from umbel.auth.authenticator import Authenticator, Place, Presented, Refusal
from umbel.auth.keys import api_keys
from umbel.auth.keys.api_keys import KEY_MAX, ApiKeyAuthenticator, problems
from umbel.auth.statistics import authenticator_statistics
from umbel.config.schema.access.auth import ApiKeyAuth
from umbel.core.diagnostics.redact import Redactor
from umbel.core.errors import ConfigError
from umbel.core.events import Event, LogMessage
from umbel.core.identity import Identity

LONG_AGO = 1_700_000_000


class Recorded:
    """Recorder that keeps the names of events, and sets an event of trio at each."""

    def __init__(self) -> None:
        self.messages: list[LogMessage] = []
        self.changed = trio.Event()

    def record(self, event: Event) -> None:
        assert isinstance(event, LogMessage)
        self.messages.append(event)
        self.changed.set()

    @property
    def events(self) -> list[str]:
        return [message.event for message in self.messages]


def table(key: str, name: str = "acme", more: str = "") -> str:
    return f'[[keys]]\nid = "{name}"\nsha256 = "{hashlib.sha256(key.encode("latin-1")).hexdigest()}"\n{more}\n'


def write(path: Path, text: str, age: int = 0) -> Path:
    path.write_text(text)
    os.utime(path, (LONG_AGO - age, LONG_AGO - age))
    return path


def remove(path: Path) -> None:
    path.unlink()


def presented(key: str | None = None, **fields: str) -> Presented:
    return Presented(fields if key is None else {"x-api-key": key}, {}, b"")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "keys.toml", table("first", more='scopes = ["a:read"]'))


def made(
    file: Path, recorder: Recorded | None = None, wall: Callable[[], float] = lambda: 1000.0
) -> ApiKeyAuthenticator:
    section = ApiKeyAuth(kind="api-key", file=str(file))
    return ApiKeyAuthenticator("partners", section, recorder=recorder or Recorded(), wall=wall)


async def settle(keys: ApiKeyAuthenticator) -> None:
    """Look twice: a file that has changed is read at the second look."""
    await keys.look()
    await keys.look()


def lets_in(keys: ApiKeyAuthenticator, key: str) -> bool:
    return isinstance(keys.authenticate(presented(key)), Identity)


async def test_a_known_key_gives_the_identity_of_its_table(file: Path) -> None:
    keys: Authenticator = made(file)
    assert keys.authenticate(presented("first")) == Identity("api-key", "partners", "acme", ("a:read",))
    assert (keys.name, keys.kind, keys.places) == ("partners", "api-key", (Place("header", "x-api-key"),))
    assert keys.used(presented("first")) == Place("header", "x-api-key")
    assert keys.challenge(None) == 'ApiKey realm="partners"'
    assert not await keys.renew_keys(presented("first"))


@pytest.mark.parametrize("fields", [{}, {"x-api-key": ""}, {"authorization": "first"}])
def test_a_request_without_the_field_presents_no_key(fields: Mapping[str, str], file: Path) -> None:
    keys = made(file)
    assert keys.authenticate(presented(**fields)) is keys.used(presented(**fields)) is None


@pytest.mark.parametrize(
    ("key", "error", "outcome"),
    [
        ("other", "invalid_token", "unknown-key"),
        ("First", "invalid_token", "unknown-key"),
        ("first ", "invalid_token", "unknown-key"),
        ("\xff", "invalid_token", "unknown-key"),
        ("\u20ac\ud800", "invalid_token", "unknown-key"),
        ("first, first", "invalid_request", "invalid"),
        ("f" * (KEY_MAX + 1), "invalid_request", "invalid"),
    ],
)
def test_any_other_key_is_refused(key: str, error: str, outcome: str, file: Path) -> None:
    refusal = made(file).authenticate(presented(key))
    assert isinstance(refusal, Refusal)
    assert (refusal.error, refusal.outcome, refusal.unavailable, refusal.keys_may_come) == (
        error,
        outcome,
        False,
        False,
    )
    assert refusal.reason.isascii()
    assert '"' not in refusal.reason


def test_the_digest_of_a_key_is_no_key(file: Path) -> None:
    assert not lets_in(made(file), hashlib.sha256(b"first").hexdigest())


def test_a_key_may_be_of_any_bytes_of_a_field(tmp_path: Path) -> None:
    keys = made(write(tmp_path / "keys.toml", table("\xe9" * KEY_MAX)))
    assert lets_in(keys, "\xe9" * KEY_MAX)


def test_a_key_is_refused_from_the_moment_it_expires(tmp_path: Path) -> None:
    now = [59.9]
    text = table("short", more="expires = 1970-01-01T00:01:00Z")
    keys = made(write(tmp_path / "keys.toml", text), wall=lambda: now[0])
    assert lets_in(keys, "short")
    assert keys.statistics().expired == 0
    now[0] = 60.0
    refusal = keys.authenticate(presented("short"))
    assert isinstance(refusal, Refusal)
    assert refusal.outcome == "expired"
    assert keys.statistics().expired == 1


def test_a_hit_and_a_miss_make_the_same_comparison(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look-up depends on bits of a digest that a client could choose, and each request compares once."""
    compared: list[tuple[int, int]] = []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return original(one, other)

    original = hmac.compare_digest
    monkeypatch.setattr(api_keys.hmac, "compare_digest", counting)
    one, other = made(file), made(file)
    for key in ("first", "other", ""):
        one.authenticate(presented(key))
    assert compared == [(32, 32), (32, 32)]
    assert one._table.by_mac.keys().isdisjoint(other._table.by_mac)  # Each process draws its own key.


def test_an_unusable_file_is_a_mistake_of_the_configuration(file: Path) -> None:
    write(file, table("first") + "[[keys]]\n")
    with pytest.raises(ConfigError) as caught:
        made(file)
    assert [(each.file, each.line, each.key) for each in caught.value.problems] == [(str(file), 5, "keys[1]")] * 2
    section = ApiKeyAuth(kind="api-key", file=str(file))
    assert list(problems(section)) == [
        (("file",), f"{file}:5: keys[1]: has no id"),
        (("file",), f"{file}:5: keys[1]: {caught.value.problems[1].reason}"),
    ]
    missing = ApiKeyAuth(kind="api-key", file=str(file) + ".none")
    assert list(problems(missing)) == [(("file",), f"{file}.none: cannot be read: there is no such file")]


def by_rename(file: Path, text: str) -> None:
    write(file.with_suffix(".new"), text).rename(file)


def in_place(file: Path, text: str) -> None:
    write(file, text, age=1)


def by_directory(file: Path, text: str) -> None:
    """Replace as Kubernetes replaces the files of a secret: the directory is a symbolic link that is swapped."""
    data = file.parent
    write((data.parent / "two").mkdir() or data.parent / "two" / file.name, text)
    (data.parent / "link").symlink_to("two")
    (data.parent / "link").rename(data)


@pytest.mark.parametrize("replace", [by_rename, in_place, by_directory])
async def test_a_replaced_file_is_in_force_as_a_whole(replace: Callable[[Path, str], None], tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "data").symlink_to("one")
    file = write(tmp_path / "data" / "keys.toml", table("first"))
    recorder = Recorded()
    keys = made(file, recorder)
    await settle(keys)
    assert recorder.events == []
    replace(file, table("later"))
    await keys.look()
    assert (lets_in(keys, "first"), lets_in(keys, "later")) == (True, False)
    await keys.look()
    assert (lets_in(keys, "first"), lets_in(keys, "later")) == (False, True)
    await settle(keys)
    assert recorder.events == ["auth.key_file_read"]
    assert recorder.messages[0].fields == {"auth": "partners", "file": str(file), "keys": 1, "generation": 2}


async def test_a_file_that_keeps_changing_is_not_read(file: Path) -> None:
    keys = made(file)
    for age in range(1, 5):
        write(file, table("later"), age)
        await keys.look()
        assert lets_in(keys, "first")
    await keys.look()
    assert lets_in(keys, "later")


async def test_a_file_that_changes_while_it_is_read_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, recorder = made(file, recorder := Recorded()), recorder
    original = api_keys.read_key_file
    texts = iter([table("half"), "[[keys"])

    def changed_meanwhile(path: str, *, settled: bool = False) -> object:
        for text in texts:
            write(file, text, 7 + len(text))
            break
        return original(path, settled=settled)

    write(file, table("x"), 5)
    monkeypatch.setattr(api_keys, "read_key_file", changed_meanwhile)
    await settle(keys)  # Another file than the one that was looked at.
    await settle(keys)  # The same, with a mistake.
    assert (recorder.events, lets_in(keys, "first")) == ([], True)
    write(file, table("later"), 9)
    await settle(keys)
    assert (recorder.events, lets_in(keys, "later")) == (["auth.key_file_read"], True)


async def test_a_bad_file_keeps_the_last_keys_and_is_recorded_once(file: Path) -> None:
    now, recorder = [1000.0], Recorded()
    keys = made(file, recorder, lambda: now[0])
    write(file, table("later") + '[[keys]]\nid = "uk_secret', 1)
    for _ in range(4):
        await keys.look()
    assert (recorder.events, lets_in(keys, "first")) == (["auth.key_file_failed"], True)
    os.unlink(file)  # noqa: PTH108 - as a plain function
    for _ in range(4):
        await keys.look()
    assert recorder.events == ["auth.key_file_failed"] * 2
    now[0] = 1060.0
    snapshot = keys.statistics()
    assert (snapshot.keys, snapshot.read_age, snapshot.generation) == (1, 60.0, 1)
    assert snapshot.last_error == "cannot be read: there is no such file"
    write(file, table("later"), 2)
    await settle(keys)
    snapshot = keys.statistics()
    assert (snapshot.read_age, snapshot.generation, snapshot.last_error) == (0.0, 2, None)
    assert [message.level for message in recorder.messages] == ["error", "error", "info"]
    assert "uk_secret" not in str(recorder.messages)


async def test_a_cancelled_look_loses_no_change(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = made(file)
    write(file, table("later"), 1)
    await keys.look()
    with trio.CancelScope() as scope:
        original = api_keys.read_key_file

        def cancelled(path: str, *, settled: bool = False) -> object:
            trio.from_thread.run_sync(scope.cancel)
            return original(path, settled=settled)

        monkeypatch.setattr(api_keys, "read_key_file", cancelled)
        await keys.look()
    assert scope.cancelled_caught
    monkeypatch.setattr(api_keys, "read_key_file", original)
    assert lets_in(keys, "first")
    await keys.look()
    assert lets_in(keys, "later")


async def test_an_empty_file_closes_nothing(file: Path) -> None:
    keys = made(file)
    write(file, "", 1)
    await settle(keys)
    assert lets_in(keys, "first")


async def test_the_task_finds_a_change_and_ends_when_cancelled(
    file: Path, autojump_clock: trio.testing.MockClock
) -> None:
    recorder = Recorded()
    keys = made(file, recorder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        by_rename(file, table("later"))
        await recorder.changed.wait()
        assert (recorder.events, lets_in(keys, "later")) == (["auth.key_file_read"], True)
        nursery.cancel_scope.cancel()


def test_no_key_and_no_digest_is_shown(file: Path) -> None:
    keys = made(file)
    shown = repr(keys) + repr(keys.statistics()) + repr(keys.authenticate(presented("wrong")))
    assert hashlib.sha256(b"first").hexdigest() not in shown
    assert "wrong" not in shown


@pytest.mark.parametrize("content", [None, "", "[[keys]]\nid = 3\n"])
async def test_a_broken_file_that_is_not_required_gives_503_until_it_is_mended(
    content: str | None, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(file) if content is None else write(file, content)
    recorder = Recorded()
    section = ApiKeyAuth(kind="api-key", file=str(file))
    with pytest.raises(ConfigError):
        ApiKeyAuthenticator("partners", section, recorder=recorder)
    keys = ApiKeyAuthenticator("partners", section, recorder=recorder, required=False)
    refusal = keys.authenticate(presented("first"))
    assert isinstance(refusal, Refusal)
    assert (refusal.unavailable, refusal.outcome, refusal.keys_may_come) == (True, "no-keys", False)
    assert keys.authenticate(presented()) is None
    assert f"{file} of [auth.partners] cannot be used; its keys get 503 until it can" in capsys.readouterr().err
    (shown,) = authenticator_statistics([keys], Redactor())
    assert (shown.state, shown.sources[0].keys, shown.sources[0].age) == ("none", 0, None)
    assert shown.sources[0].last_error
    await settle(keys)
    assert recorder.events == ["auth.key_file_failed"]
    write(file, table("first"), age=5)
    await settle(keys)
    assert lets_in(keys, "first")
    assert recorder.events == ["auth.key_file_failed", "auth.key_file_read"]
    (shown,) = authenticator_statistics([keys], Redactor())
    assert (shown.state, shown.sources[0].keys) == ("ok", 1)
