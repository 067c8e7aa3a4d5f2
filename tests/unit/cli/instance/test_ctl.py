"""``umbel ctl`` without an instance that answers: one sentence, in a bounded time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from umbel.cli import main
from umbel.cli.instance.admin_client import _TimedSocket


@contextmanager
def answering(path: Path, *pieces: bytes, pause: float = 0.0, connections: int = 1) -> Iterator[None]:
    """Answer each of so many connections at ``path`` with the pieces."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            for _ in range(connections):
                sock, _address = listener.accept()
                with sock, suppress(OSError):
                    sock.recv(4096)
                    for piece in pieces:
                        sock.sendall(piece)
                        time.sleep(pause)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (ok(b"<html>"), "is not that of an admin side of this version (the answer is not JSON)"),
        (ok(b"[" * 100_000), "is not that of an admin side of this version (the answer is not JSON)"),
        (ok(b"\xff\xfe"), "is not that of an admin side of this version (the answer is not JSON)"),
        (ok(b"[1]"), "is not that of an admin side of this version (the answer is no JSON object)"),
        (b'{"ok": true}\n', "is not the socket of an admin side (BadStatusLine); check --socket"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", "is not the socket of an admin side (HTTPException)"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "is not the socket of an admin side (IncompleteRead)"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}", "Error: status 404"),
        (ok(b"{}"), "the answer lacks fields, so it may be of another version"),
        (ok(b'{"master": [], "slots": 3}'), "the answer lacks fields"),
        (b"", "nothing answers at"),
    ],
    ids=["page", "deep", "bytes", "list", "no HTTP", "fields", "cut", "404", "empty", "other types", "nothing"],
)
def test_an_answer_that_is_not_an_admin_sides_is_one_sentence(answer: bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with answering(path, answer):
        result = CliRunner().invoke(main, ["ctl", "status", "--socket", str(path)])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert sentence in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    "pieces", [[b"H"] * 20, [b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", *[b" "] * 20]], ids=["head", "body"]
)
def test_a_slow_answer_is_cut_off_at_the_limit_for_the_whole(
    pieces: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("umbel.cli.instance.admin_client._ANSWER_S", 0.2)
    path = tmp_path / "admin.sock"
    with answering(path, *pieces, pause=0.05):
        began = time.monotonic()
        result = CliRunner().invoke(main, ["ctl", "status", "--socket", str(path)])
        assert time.monotonic() - began < 0.8
    assert result.exit_code == 1
    assert f"no complete answer from {path} (waited 0.2 s); a command may still be carried out" in result.output


def test_a_request_that_is_not_taken_ends_at_the_limit_with_the_time_in_its_message() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError, match=r"^waited 0\.05 s$"):
        _TimedSocket(ours, 0.05).sendall(bytes(10_000_000))


@contextmanager
def listening(*paths: Path) -> Iterator[None]:
    """Listen at the paths."""
    with ExitStack() as stack:
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(path))
            sock.listen()
        yield


def test_several_instances_in_one_directory_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    logs = tmp_path / "logs"
    with listening(logs / "admin.sock", logs / "admin-7.sock", logs / "other.sock"):
        with listening(logs / "admin-8.sock"):
            pass  # A stale one.
        result = CliRunner().invoke(main, ["ctl", "status"])
    assert result.exit_code == 1
    assert result.output == (
        f"Error: several instances run; name one with --socket: {logs}/admin-7.sock, {logs}/admin.sock\n"
    )


@pytest.mark.parametrize(
    ("config", "place"),
    [
        (None, "logs"),
        ("", "logs"),
        ('[logs]\ndir = "elsewhere"\n', "elsewhere"),
        ('[logs]\ndir = "elsewhere"\n[nonsense]\n', "elsewhere"),
        ('[logs]\ndir = "${PLACE:-elsewhere}"\n', "elsewhere"),
        ('[logs]\ndir = "elsewhere\n', "logs"),
        ('logs = "elsewhere"\n', "logs"),
    ],
    ids=["no file", "empty", "directory", "mistake", "variable", "no TOML", "no table"],
)
def test_the_socket_is_found_by_the_configuration(
    config: str | None, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if config is not None:
        (tmp_path / "umbel.toml").write_text(config)
    (tmp_path / place).mkdir()
    with answering(tmp_path / place / "admin.sock", b"", ok(b'{"trees": []}'), connections=2):
        result = CliRunner().invoke(main, ["ctl", "tree"])
    assert (result.exit_code, result.output) == (0, "")


def test_the_directory_of_the_logs_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "umbel.toml").write_text('[logs]\ndir = "${PLACE}/x"\n')
    where = ("-c", str(tmp_path / "umbel.toml"))
    result = CliRunner().invoke(main, ["ctl", "status", *where], env={"PLACE": "run"})
    assert f"no instance runs with a socket in {tmp_path}/run/x; " in result.output
    result = CliRunner().invoke(main, ["ctl", "status", *where], env={"PLACE": None})
    assert (result.exit_code, result.output) == (
        1,
        f"Error: {tmp_path}/umbel.toml: logs.dir: the environment variable PLACE is not set; set it, or write "
        "${PLACE:-default}; or name the socket with --socket\n",
    )


def test_the_runtime_directory_takes_precedence_and_a_missing_socket_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path / 'run'}:{tmp_path / 'more'}")
    result = CliRunner().invoke(main, ["ctl", "status"])
    assert result.exit_code == 1
    assert result.output == (
        f"Error: no instance runs with a socket in {tmp_path / 'run'}; "
        "name another one with --socket (of a systemd unit: /run/UNIT/umbel-admin.sock); "
        "an instance that has none says why on stderr and in its log app\n"
    )


def test_the_state_of_a_process_without_a_master_is_shown(tmp_path: Path) -> None:
    process = '{"pid": 7, "uptime_s": 65.0, "state": "serving", "summary": "the event loop runs", "blocked": null}'
    server = '{"requests_total": 12, "requests_in_flight": 1, "streams": 2, "connections": 3}'
    answer = ok(f'{{"process": {process}, "server": {server}, "app": {{}}}}'.encode())
    with answering(tmp_path / "admin.sock", answer):
        result = CliRunner().invoke(main, ["ctl", "status", "--socket", str(tmp_path / "admin.sock")])
    assert (result.exit_code, result.output) == (
        0,
        "serving: the event loop runs\nprocess 7, up 1m 5s, without a master\n"
        "12 requests, 1 in flight, 2 streams, 3 connections\n",
    )
