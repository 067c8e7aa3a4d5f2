"""Accepting connections: errors of one connection, a lack of descriptors, and addresses that cannot be bound."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.config import Config

from tests.support.server.http1 import App, hello
from tests.support.server.serving import RawClient
from umbel.server import hypercorn_config
from umbel.server.handler import handler_of
from umbel.server.process.listen import Listener, accept_from, listening
from umbel.server.state import ServerState

MockClock = trio.testing.MockClock


class Troubled:
    """A listening socket whose ``accept`` raises each of these errors once, and then accepts."""

    def __init__(self, sock: socket.socket, errors: list[int]) -> None:
        self._sock = sock
        self.errors = errors
        self.tries: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def accept(self) -> Any:
        self.tries.append(trio.current_time())
        if self.errors:
            raise OSError(self.errors.pop(0), "trouble")
        return self._sock.accept()


async def served_after(errors: list[int]) -> tuple[App, list[float]]:
    app = App(hello)
    config = Config()
    config.bind = ["127.0.0.1:0"]
    state = ServerState(app, config, handle=handler_of(app))
    with listening(config) as (listener,):
        troubled: Any = Troubled(listener.socket, errors)
        async with trio.open_nursery() as nursery:
            await nursery.start(state.run)
            nursery.start_soon(accept_from, Listener(troubled, None), state, nursery)
            async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
                assert (await RawClient(stream).request("GET", "/")).status == 200
            nursery.cancel_scope.cancel(reason="done")
    return app, troubled.tries


async def test_a_connection_broken_before_its_accept_is_skipped(autojump_clock: MockClock) -> None:
    app, _ = await served_after([errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
    assert trio.current_time() == 0
    assert app.recorder.events == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_without_descriptors_accepting_pauses_with_a_record_every_ten_seconds(
    number: int, autojump_clock: MockClock
) -> None:
    app, tries = await served_after([number] * 250)
    assert trio.current_time() == pytest.approx(25)
    assert tries[1] - tries[0] == pytest.approx(0.1)
    assert [note.event for note in app.recorder.logged] == ["accept.paused"] * 3
    assert "trouble" in app.recorder.logged[0].message


async def test_any_other_accept_error_is_raised(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await served_after([errno.EINVAL])


def test_addresses_are_reported_as_urls() -> None:
    config = Config()
    config.bind = ["127.0.0.1:0", "[::1]:0"]
    with listening(config) as listeners:
        addresses = [listener.address for listener in listeners]
    assert addresses[0].startswith("http://127.0.0.1:")
    assert addresses[1].startswith("http://[::1]:")
    assert all(listener.socket.fileno() == -1 for listener in listeners)


def test_by_default_a_burst_of_connections_waits_to_be_accepted() -> None:
    """Of connections that overflow the backlog, the kernel drops the SYN: their clients wait a second or more."""
    burst = min(1000, int(Path("/proc/sys/net/core/somaxconn").read_text()))
    with ExitStack() as stack:
        (listener,) = stack.enter_context(listening(hypercorn_config(bind=["127.0.0.1:0"])))
        for _ in range(burst):
            client = stack.enter_context(socket.socket())
            client.settimeout(0.9)  # A second SYN follows after 1 s at the earliest.
            client.connect(listener.socket.getsockname())


def listen_in_vain(*binds: str) -> str:
    config = Config()
    config.bind = [*binds]
    with pytest.raises(OSError, match="cannot listen on fd://") as caught, listening(config):
        pass
    return caught.value.strerror or ""


def test_a_descriptor_that_is_no_stream_socket_raises_one_sentence(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        duplicate = os.dup(datagram.fileno())  # A refused descriptor is closed.
        assert listen_in_vain(f"fd://{file.fileno()}").endswith("Socket operation on non-socket")
        assert listen_in_vain(f"fd://{duplicate}").endswith("a file descriptor is not a stream socket")
    assert listen_in_vain("fd://9999").endswith("Bad file descriptor")


def test_a_descriptor_given_twice_raises_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        bind = f"fd://{sock.fileno()}"
        assert listen_in_vain(bind, bind).endswith(f"{bind} is given twice; remove one of them")
