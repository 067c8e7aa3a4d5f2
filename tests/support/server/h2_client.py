"""An HTTP/2 client over h2, with which a test may send any frame, also an invalid one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import trio
from hyperframe.frame import Frame

from umbel.server.http2.frames import GOAWAY, FrameSplitter

Headers = Iterable[tuple[str | bytes, str | bytes]]


@dataclass
class Answer:
    """The response on one stream, as far as it has arrived."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    informational: list[int] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    def __getitem__(self, name: str) -> str:
        (value,) = (value for key, value in self.headers if key == name)
        return value


class H2Client:
    """One connection. What the test sends is not validated.

    Args:
        window: the client's initial flow-control window of each stream, in bytes; None: h2's default.
    """

    def __init__(self, stream: trio.abc.Stream, *, window: int | None = None) -> None:
        self.stream = stream
        config = h2.config.H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        if window is not None:
            self.h2.local_settings = h2.settings.Settings(
                client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
            )
        self._cutter = FrameSplitter(2**24)
        self.answers: dict[int, Answer] = {}
        self.goaway: list[int] = []
        """The error codes of the received GOAWAY frames."""
        self.closed = False
        self.settled = False
        """Whether the server has acknowledged the client's SETTINGS; it has sent its own before."""
        self.acknowledges = True
        """Whether the client sends WINDOW_UPDATE for received DATA."""
        self.mute = False
        """Whether ``receive`` sends nothing by itself. Set while another task sends on the stream."""

    async def begin(self) -> None:
        self.h2.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        if data := self.h2.data_to_send():
            await self.stream.send_all(data)

    async def request(
        self, method: str = "GET", path: str | bytes = "/", headers: Headers = (), *, end: bool = True, **pseudo: Any
    ) -> int:
        """Send a request head and return its stream identifier. ``end``: the request has no body."""
        stream_id = self.h2.get_next_available_stream_id()
        fields = {":method": method, ":path": path, ":scheme": "http", ":authority": "gateway.test", **pseudo}
        head = [(name, value) for name, value in fields.items() if value is not None]
        self.h2.send_headers(stream_id, [*head, *headers], end_stream=end)
        self.answers[stream_id] = Answer()
        await self.flush()
        return stream_id

    async def data(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream_id, data, end_stream=end)
        await self.flush()

    async def frames(self, *frames: Frame) -> None:
        """Send frames without h2, which would refuse to send invalid ones."""
        await self.flush()
        await self.stream.send_all(b"".join(frame.serialize() for frame in frames))

    async def receive(self) -> bool:
        """Read once from the connection; return False at its end."""
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self.closed = True
            return False
        for frame in self._cutter.cut(data):
            if frame.kind == GOAWAY:
                # h2 would treat the connection as closed, but responses in flight still arrive (RFC 9113 section 6.8).
                self.goaway.append(int.from_bytes(frame.data[13:17], "big"))
                continue
            for event in self.h2.receive_data(frame.data):
                self._take(event)
        if not self.mute:
            try:
                await self.flush()
            except trio.BrokenResourceError:
                self.closed = True
        return True

    def _take(self, event: Any) -> None:
        answer = self.answers.get(getattr(event, "stream_id", 0) or 0, Answer())
        match event:
            case h2.events.ResponseReceived():
                headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
                answer.status = int(headers[0][1])
                answer.headers = headers[1:]
            case h2.events.InformationalResponseReceived():
                answer.informational.append(int(event.headers[0][1]))
            case h2.events.TrailersReceived():
                answer.trailers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
            case h2.events.DataReceived():
                answer.body += event.data
                if self.acknowledges:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.SettingsAcknowledged():
                self.settled = True
            case h2.events.StreamEnded():
                answer.ended = True
            case h2.events.StreamReset():
                answer.reset = int(event.error_code)

    async def answer(self, stream_id: int) -> Answer:
        """Read until the stream has ended, was reset, or the connection has ended."""
        answer = self.answers[stream_id]
        while not (answer.ended or answer.reset is not None) and await self.receive():
            pass
        return answer

    async def ended(self) -> None:
        """Read until the server closes the connection."""
        while await self.receive():
            pass

    async def fetch(self, method: str = "GET", path: str | bytes = "/", headers: Headers = (), **pseudo: Any) -> Answer:
        return await self.answer(await self.request(method, path, headers, **pseudo))


@asynccontextmanager
async def h2_client(port: int, **options: Any) -> AsyncIterator[H2Client]:
    """A connection with prior knowledge, after the client's preface."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = H2Client(stream, **options)
        await client.begin()
        yield client
