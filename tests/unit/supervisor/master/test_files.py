"""The master's files: its pidfile and its listening sockets."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
from hypercorn.config import Config

from umbel.core.errors import ConfigError
from umbel.supervisor.master.listeners import activated_sockets, bound
from umbel.supervisor.master.pidfile import pidfile


def test_a_pidfile_exists_while_it_is_held_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("999999\n")
    with pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(ConfigError, match=f"held by a running master .process {os.getpid()}"), pidfile(str(path)):
            pass
    assert not path.exists()


@pytest.mark.parametrize("content", ["precious", "[server]\n", "1" * 100, "12 monkeys"])
def test_a_file_that_is_not_a_pidfile_is_neither_overwritten_nor_removed(content: str, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(content)
    with pytest.raises(ConfigError, match="contains something other than a process id"), pidfile(str(path)):
        pass
    assert path.read_text() == content


def test_a_pipe_in_the_place_of_the_pidfile_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    with (
        pytest.raises(ConfigError, match=r"pid_path: .* cannot be written: it is a named pipe, not a regular file"),
        pidfile(f"{tmp_path}/pid"),
    ):
        pass
    assert (tmp_path / "pid").exists()


def test_a_pidfile_that_was_replaced_by_another_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pidfile(str(path)):
        path.unlink()
        path.write_text("1\n")
    assert path.read_text() == "1\n"


def test_a_socket_passed_by_systemd_is_not_removed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(f"{tmp_path}/s")
        descriptor = os.dup(passed.fileno())
        with bound(config(f"fd://{descriptor}")) as listeners:
            listeners.close()
    assert (tmp_path / "s").exists()


def test_a_pidfile_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pid_path: .* cannot be written: No such file"), pidfile(f"{tmp_path}/a/b"):
        pass


def config(*bind: str) -> Config:
    made = Config()
    made.bind = list(bind)
    return made


def test_sockets_listen_and_are_not_inheritable(tmp_path: Path) -> None:
    with bound(config("127.0.0.1:0", f"unix:{tmp_path}/s")) as listeners:
        assert listeners.secure == ()
        assert [os.get_inheritable(number) for number in listeners.insecure] == [False, False]
        port = int(listeners.addresses[0].rpartition(":")[2])
        assert listeners.addresses == [f"http://127.0.0.1:{port}", f"unix:{tmp_path}/s"]
        socket.create_connection(("127.0.0.1", port)).close()
        listeners.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert not (tmp_path / "s").exists()


def test_a_unix_socket_of_a_later_master_is_not_removed(tmp_path: Path) -> None:
    with bound(config(f"unix:{tmp_path}/s")):
        (tmp_path / "s").rename(tmp_path / "ours")
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(f"{tmp_path}/s")
    assert (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("environment", "count"),
    [
        ({}, 0),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, 0),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}, 2),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "x"}, 0),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "²"}, 0),
        ({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "9" * 12}, 0),
    ],
)
def test_only_sockets_passed_to_this_process_count_as_activated(environment: dict[str, str], count: int) -> None:
    assert activated_sockets(environment) == count


def test_a_pidfile_that_cannot_be_removed_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    path = tmp_path / "umbel.pid"
    with pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"
        monkeypatch.setattr(Path, "unlink", refuse)  # As in a directory of another user.
    assert path.read_text() == ""
    with pidfile(str(path)):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_pidfile_on_a_full_disk_is_a_configuration_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    reason = r"umbel\.pid cannot be written: No space left on device"
    with pytest.raises(ConfigError, match=reason), pidfile(str(tmp_path / "umbel.pid")):
        pytest.fail("it was not refused")
    assert not (tmp_path / "umbel.pid").exists()
