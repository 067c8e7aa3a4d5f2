"""The listening sockets of the admin side: names, modes, stale sockets, long paths and taken addresses."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from umbel.admin import listeners as module
from umbel.admin.listeners import AdminListener, connected, tcp_listener, terminal_listener, unix_listener
from umbel.admin.settings import SocketPlace, socket_place


@contextmanager
def opened(*places: SocketPlace) -> Iterator[list[AdminListener]]:
    with ExitStack() as stack:
        listeners = []
        for place in places:
            listeners.append(unix_listener(place))
            stack.callback(listeners[-1].close)
        yield listeners


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_instances_in_one_directory_have_sockets_of_their_own_with_mode_0600(tmp_path: Path) -> None:
    place = SocketPlace(tmp_path, "admin")
    before = os.umask(0)
    try:
        with opened(place, place, place) as listeners:
            assert names(tmp_path) == [f"admin-{os.getpid()}-2.sock", f"admin-{os.getpid()}.sock", "admin.sock"]
            assert {stat.S_IMODE(Path(each.address).stat().st_mode) for each in listeners} == {0o600}
            assert not any(os.get_inheritable(each.socket.fileno()) for each in listeners)
            for each in listeners:
                with connected(each.address, 1):
                    pass
        assert names(tmp_path) == []
    finally:
        os.umask(before)


def test_stale_sockets_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    for name in ("admin.sock", "admin-1.sock", "admin-2-2.sock", "other.sock", "admin-x.sock"):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(tmp_path / name))
    (tmp_path / "admin-3.sock").write_text("precious")
    with opened(SocketPlace(tmp_path, "admin")):
        assert names(tmp_path) == ["admin-3.sock", "admin-x.sock", "admin.sock", "other.sock"]


def test_a_directory_is_created_only_where_logs_are_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unix_listener(SocketPlace(tmp_path / "a" / "b", "admin"))
    with opened(SocketPlace(tmp_path / "a" / "b", "admin", creates=True)):
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) & 0o027 == 0


def test_a_path_of_any_length_can_be_bound_and_connected_to(tmp_path: Path) -> None:
    place = SocketPlace(tmp_path / ("x" * 120), "admin", creates=True)
    with opened(place, place) as listeners:
        assert names(place.directory) == [f"admin-{os.getpid()}.sock", "admin.sock"]
        for each in listeners:
            assert stat.S_IMODE(Path(each.address).stat().st_mode) == 0o600
            with connected(each.address, 1):
                pass
            assert not each.is_gone()
    assert names(place.directory) == []


def test_a_client_waits_while_the_backlog_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        with connected(path, 1), pytest.raises(BlockingIOError), connected(path, 0.05):
            pass
        threading.Timer(0.05, lambda: listener.accept()[0].close()).start()
        with connected(path, 10):
            pass


def test_a_file_with_the_name_is_kept_and_reported_with_its_own_path(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / ("x" * 120)):
        directory.mkdir(exist_ok=True)
        path = directory / "admin.sock"
        path.write_text("precious")
        with pytest.raises(OSError, match=f"{path} is a regular file, not a socket"):
            unix_listener(SocketPlace(directory, "admin"))
        assert path.read_text() == "precious"


@pytest.mark.parametrize("replaced", [False, True])
def test_a_removed_path_is_noticed_and_a_newer_socket_is_not_removed(replaced: bool, tmp_path: Path) -> None:
    with opened(SocketPlace(tmp_path, "admin")) as [listener]:
        assert not listener.is_gone()
        Path(listener.address).unlink()
        if replaced:
            with socket.socket(socket.AF_UNIX) as theirs:
                theirs.bind(listener.address)
        assert listener.is_gone()
    assert names(tmp_path) == (["admin.sock"] if replaced else [])


def test_a_failed_start_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").write_text("precious")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(OSError):
            unix_listener(SocketPlace(tmp_path, "admin"))
        with pytest.raises(OSError):
            connected(str(tmp_path / ("x" * 200)), 1).__enter__()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_an_address_that_is_taken_is_reported_in_one_sentence(host: str) -> None:
    listener = tcp_listener(f"{host}:0")
    try:
        with pytest.raises(
            OSError,
            match=r"cannot listen on .*: Address already in use; another process, or another",
        ):
            tcp_listener(listener.address)
    finally:
        listener.close()


def test_a_host_that_cannot_be_resolved_is_reported_in_one_sentence() -> None:
    with pytest.raises(OSError, match=r"cannot listen on nowhere\.invalid:9600: "):
        tcp_listener("nowhere.invalid:9600")


def test_a_terminal_gets_the_first_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as freed:
        ports = [taken.getsockname()[1], freed.getsockname()[1]]
        freed.close()
        monkeypatch.setattr(module, "TERMINAL_PORTS", ports)
        listener = terminal_listener()
        assert listener.address == f"127.0.0.1:{ports[1]}"
        with pytest.raises(OSError, match="is free"):
            terminal_listener()
        listener.close()


def test_the_runtime_directory_takes_precedence_over_the_directory_of_the_logs(tmp_path: Path) -> None:
    assert socket_place("logs", {}, creates=True) == SocketPlace(Path("logs").absolute(), "admin", creates=True)
    environment = {"RUNTIME_DIRECTORY": f"{tmp_path}:/run/other"}
    assert socket_place("logs", environment, creates=True) == SocketPlace(tmp_path, "umbel-admin")
