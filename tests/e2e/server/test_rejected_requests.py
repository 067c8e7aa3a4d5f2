"""Refused requests: the connection stays open if the client asks for it, and the record shows a client's mistake."""

from __future__ import annotations

import pytest
import trio
from hyperframe.frame import Frame, PingFrame, SettingsFrame

from tests.support.server.h2_client import h2_client
from tests.support.server.h2_connections import App, hello
from tests.support.server.raw_client import converse
from tests.support.server.serving import serving
from umbel.server import Limits, hypercorn_config, serve
from umbel.server.handler import handler_of
from umbel.server.state import ServerState

NEXT = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("target", [b"x", b"/a#b"])
@pytest.mark.parametrize(
    ("version", "fields", "stays"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"connection: x, Close\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", False),
        (b"1.1", b"Content-Length: 3\r\n", False),
    ],
)
async def test_after_a_malformed_target_the_connection_obeys_the_client(
    target: bytes, version: bytes, fields: bytes, stays: bool
) -> None:
    app = App(hello)
    async with serving(app) as port:
        said = await converse(port, b"GET %b HTTP/%b\r\nHost: a\r\n%b\r\n" % (target, version, fields) + NEXT)
    assert said.statuses == ([400, 200] if stays else [400])
    assert [b"connection: close" in said.received.partition(b"\r\n\r\n")[0]] == [not stays]
    assert [record.status for record in app.recorder.requests] == [400]
    assert app.recorder.logged == []


@pytest.mark.parametrize(
    ("version", "fields", "said"),
    [
        (b"1.1", b"", None),
        (b"1.1", b"Connection: close\r\n", b"connection: close"),
        (b"1.0", b"", b"connection: close"),
        (b"1.0", b"Connection: keep-alive\r\n", b"connection: keep-alive"),
    ],
)
async def test_after_a_503_the_connection_obeys_the_client(version: bytes, fields: bytes, said: bytes | None) -> None:
    app = App(hello)
    config = hypercorn_config(bind=["127.0.0.1:0"])
    config.graceful_timeout = 1.0
    state = ServerState(app, config, Limits(max_in_flight=0), handle=handler_of(app))
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            lambda task_status: serve(app, config, server=state, shutdown_trigger=stop.wait, task_status=task_status)
        )
        request = b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version, fields)
        heard = await converse(int(address.rpartition(":")[2]), request + NEXT)
        stop.set()
    assert heard.statuses == ([503] if said == b"connection: close" else [503, 503])
    head = heard.received.partition(b"\r\n\r\n")[0]
    assert (b"connection: " in head) is (said is not None)
    assert said is None or said in head


@pytest.mark.parametrize("frames", [[], [PingFrame(0, b"12345678")] * 600], ids=["malformed", "a flood"])
async def test_a_broken_http_2_connection_leaves_one_access_record(frames: list[Frame]) -> None:
    app = App(hello)
    async with serving(app) as port, h2_client(port) as client:
        while not client.settled:
            await client.receive()
        client.mute = True
        data = b"".join(frame.serialize() for frame in frames)
        if not frames:
            data = (
                SettingsFrame(0).serialize()[:5] + b"\x00\x00\x00\x01"
            )  # A SETTINGS frame with a stream id, which is malformed.
        with trio.fail_after(10):
            await client.stream.send_all(data)
            while not client.goaway and await client.receive():
                pass
    assert [record.status for record in app.recorder.requests] == [400]
    assert app.recorder.logged == []
