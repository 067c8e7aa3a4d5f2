"""Accepting: what ends a connection before it began, and what makes the server pause."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio
from hypercorn.config import Config

from tests.support.http1 import App, hello
from tests.support.serving import RawClient
from umbel.server.listen import Listener, accept_from, listening
from umbel.server.service import Service

MockClock = trio.testing.MockClock


class Troubled:
    """A listening socket that fails to accept with these errors, one each time, and then accepts."""

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
    service = Service(app, config)
    with listening(config) as (listener,):
        troubled: Any = Troubled(listener.socket, errors)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            nursery.start_soon(accept_from, Listener(troubled, None), service, nursery)
            async with await trio.open_tcp_stream(*listener.socket.getsockname()) as stream:
                assert (await RawClient(stream).request("GET", "/")).status == 200
            nursery.cancel_scope.cancel(reason="done")
    return app, troubled.tries


async def test_a_connection_that_was_broken_before_is_passed_over(autojump_clock: MockClock) -> None:
    app, _ = await served_after([errno.ECONNABORTED, errno.EPROTO, errno.EPERM])
    assert trio.current_time() == 0
    assert app.recorder.events == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_without_descriptors_it_pauses_and_says_so_every_ten_seconds(
    number: int, autojump_clock: MockClock
) -> None:
    app, tries = await served_after([number] * 250)
    assert trio.current_time() == pytest.approx(25)
    assert tries[1] - tries[0] == pytest.approx(0.1)
    assert [note.event for note in app.recorder.notes] == ["accept.paused"] * 3
    assert "trouble" in app.recorder.notes[0].message


async def test_any_other_error_is_raised(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(OSError, flatten_subgroups=True):
        await served_after([errno.EINVAL])


def test_addresses_are_told_as_urls() -> None:
    config = Config()
    config.bind = ["127.0.0.1:0", "[::1]:0"]
    with listening(config) as listeners:
        addresses = [listener.address for listener in listeners]
    assert addresses[0].startswith("http://127.0.0.1:")
    assert addresses[1].startswith("http://[::1]:")
    assert all(listener.socket.fileno() == -1 for listener in listeners)
