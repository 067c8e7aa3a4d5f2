"""Paths of Unix sockets: a live socket is not taken, a stale one is replaced, and other files stay."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypercorn.config import Config

from umbel.server.process import unix_socket
from umbel.server.process.listen import listening


def config(*bind: str) -> Config:
    made = Config()
    made.bind = list(bind)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@contextmanager
def refused(path: Path, reason: str) -> Iterator[None]:
    before = path.lstat()
    with pytest.raises(OSError, match=reason), listening(config(f"unix:{path}")):
        pytest.fail("it must not be bound")
    yield
    assert os.path.samestat(path.lstat(), before)


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def test_a_live_socket_is_not_taken_and_keeps_serving(path: Path) -> None:
    with listening(config(f"unix:{path}")):
        with refused(path, "cannot listen on unix:.*: another server listens at .*; stop it, or name another path"):
            assert connects(path)
        assert connects(path)
    assert not path.exists()


def test_a_live_socket_whose_backlog_is_full_is_not_taken(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as theirs, socket.socket(socket.AF_UNIX) as waits:
        theirs.bind(str(path))
        theirs.listen(0)
        waits.connect(str(path))
        with refused(path, "another server listens"):
            pass


def test_a_socket_of_another_type_is_not_taken(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs:
        theirs.bind(str(path))
        with refused(path, "cannot find out whether a process listens at"):
            pass


def test_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with listening(config(f"unix:{path}")):
        assert connects(path)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["a regular file", "a directory", "a named pipe", "a symbolic link"])
def test_a_path_that_is_no_socket_is_refused_and_stays(kind: str, path: Path, tmp_path: Path) -> None:
    if kind == "a regular file":
        path.write_text("precious")
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / "elsewhere"))
        path.symlink_to(tmp_path / "elsewhere")
    with refused(path, f"is {kind}, not a socket; remove it, or name another path"):
        pass


def test_a_path_given_twice_is_refused(path: Path) -> None:
    with pytest.raises(OSError, match="is given twice; remove"), listening(config(f"unix:{path}", f"unix:{path}")):
        pass


def test_a_newer_socket_at_the_path_is_not_removed(path: Path) -> None:
    with listening(config(f"unix:{path}")):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as theirs:
            theirs.bind(str(path))
    assert path.exists()


def test_a_start_that_fails_leaves_no_socket(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="Address already in use"), listening(config(f"unix:{path}", address)):
            pass
    assert not path.exists()


def test_the_lock_of_another_process_is_awaited_for_a_bounded_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    monkeypatch.setattr(unix_socket, "LOCK_S_MAX", 0.0)
    try:
        with pytest.raises(OSError, match="another process holds the lock"), listening(config(f"unix:{path}")):
            pass
        monkeypatch.setattr(unix_socket, "LOCK_S_MAX", 5.0)
        monkeypatch.setattr(unix_socket.time, "sleep", lambda seconds: fcntl.flock(directory, fcntl.LOCK_UN))
        with listening(config(f"unix:{path}")):
            assert connects(path)
    finally:
        os.close(directory)
