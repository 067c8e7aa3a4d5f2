"""Streams of live data over the Unix socket of an admin side, on the autojump clock."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.support.process.admin import ask_admin_bytes
from tests.unit.admin.test_connections import Source, serving
from umbel.admin.live import KEEP_ALIVE_S, SEND_S, SUBSCRIBERS_MAX
from umbel.admin.source import Topic


class Live(Source):
    """A source with the topics ``numbers``, which counts its samples, and ``slow``, whose samples take 60 s."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        self.taken = 0
        self.was_cancelled = trio.Event()
        """Set when a sample of ``slow`` was cancelled."""
        self._padding = "x" * padding

    def topics(self) -> dict[str, Topic]:
        return {"numbers": Topic(self._numbers), "slow": Topic(self._slow), "broken": Topic(self._broken)}

    async def _numbers(self) -> dict[str, Any]:
        self.taken += 1
        return {"number": self.taken, "padding": self._padding}

    async def _slow(self) -> int:
        try:
            await trio.sleep(60)
        except trio.Cancelled:
            self.was_cancelled.set()
            raise
        return 1

    async def _broken(self) -> int:
        self.taken += 1
        raise ValueError(f"sample {self.taken} is broken")


class Page:
    """An open stream of events."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = b""
        self.head = ""

    async def block(self) -> str:
        """Receive up to the next empty line, without the framing of chunks."""
        while b"\n\n" not in self._received:
            piece = await self._stream.receive_some()
            if not piece:
                raise trio.BrokenResourceError
            self._received += b"".join(line for line in piece.splitlines(keepends=True) if not line.endswith(b"\r\n"))
        block, _, self._received = self._received.partition(b"\n\n")
        return block.decode()

    async def event(self) -> tuple[str, Any]:
        """Receive the next event; return its name and its data."""
        while not (block := await self.block()).startswith("event: "):
            pass
        name, data = block.split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def page(path: Path, *topics: str) -> AsyncIterator[Page]:
    """Open a stream of events; it is closed at the end of the block."""
    query = "&".join(f"topic={topic}" for topic in topics)
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(f"GET /events?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        opened = Page(stream)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some(1)
        opened.head = received.decode()
        assert await opened.block() == "retry: 1000"
        yield opened


async def test_a_topic_is_sampled_only_while_a_page_shows_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path, source := Live()) as path:
        await trio.sleep(100)
        assert source.taken == 0
        async with page(path, "numbers") as shown:
            assert "content-type: text/event-stream" in shown.head
            assert [(await shown.event())[1]["number"] for _ in range(3)] == [1, 2, 3]
        await trio.sleep(5)
        taken = source.taken
        assert taken <= 4
        await trio.sleep(100)
        assert source.taken == taken


async def test_pages_that_show_one_topic_share_its_samples(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with (
        serving(tmp_path, source := Live()) as path,
        page(path, "numbers") as one,
        page(path, "numbers") as other,
    ):
        began = trio.current_time()
        numbers = [((await one.event())[1]["number"], (await other.event())[1]["number"]) for _ in range(20)]
        assert all(abs(first - second) <= 1 for first, second in numbers)
        assert source.taken <= trio.current_time() - began + 3


async def test_a_slow_topic_delays_no_other_topic_of_the_page(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path, Live()) as path, page(path, "slow", "numbers") as shown:
        began = trio.current_time()
        assert [(await shown.event())[0] for _ in range(5)] == ["numbers"] * 5
        assert trio.current_time() - began < 10


async def test_a_page_beyond_the_bound_gets_503_until_another_is_closed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path, Live()) as path, trio.open_nursery() as nursery:
        opened: list[trio.Event] = []

        async def keep_open(left: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
            async with page(path, "numbers"):
                task_status.started()
                await left.wait()

        for _ in range(SUBSCRIBERS_MAX):
            opened.append(trio.Event())
            await nursery.start(keep_open, opened[-1])
        status, content = await ask_admin_bytes(path, "GET", "/events?topic=numbers")
        assert (status, b"Too many pages are open; close one." in content) == (503, True)
        opened[0].set()
        await trio.sleep(3)
        async with page(path, "numbers") as shown:
            assert (await shown.event())[0] == "numbers"
        nursery.cancel_scope.cancel(reason="the test is over")


async def test_a_page_that_does_not_read_is_cut_and_queues_no_samples(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with serving(tmp_path, source := Live(padding=2_000_000)) as path, page(path, "numbers") as shown:
        await trio.sleep(SEND_S + 2)
        assert source.taken == 1
        received = 0
        with pytest.raises(trio.BrokenResourceError):
            while True:
                received += len(await shown.block())
        assert received < 2_000_000
        # Its place is free again.
        async with page(path, "numbers") as other:
            assert (await other.event())[1]["number"] == 2


async def test_a_sample_that_fails_is_reported_and_the_stream_goes_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    reports: list[str] = []
    async with serving(tmp_path, source := Live(), reports) as path, page(path, "broken") as shown:
        said = {"topic": "broken", "detail": "The sample has failed; see the log."}
        assert [await shown.event() for _ in range(2)] == [("failed", said)] * 2
        assert source.taken == 2
    assert re.fullmatch(
        r"admin.failed broken: the admin side cannot sample broken: ValueError at .*: sample 1 is broken", reports[0]
    )


async def test_a_stream_without_events_sends_comments(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path, Live()) as path, page(path, "slow") as shown:
        began = trio.current_time()
        assert await shown.block() == ":"
        assert KEEP_ALIVE_S <= trio.current_time() - began < KEEP_ALIVE_S + 1


async def test_a_page_that_is_closed_during_a_sample_ends_the_sample(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with serving(tmp_path, source := Live()) as path:
        async with page(path, "slow"):
            await trio.sleep(1)
        with trio.fail_after(10):
            await source.was_cancelled.wait()
        # The next page takes a sample of its own.
        async with page(path, "slow") as shown:
            assert await shown.event() == ("slow", 1)


async def test_the_end_of_the_admin_side_ends_open_streams(tmp_path: Path, autojump_clock: MockClock) -> None:
    source = Live()
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[Path]) -> None:
            async with serving(tmp_path, source) as path:
                task_status.started(path)
                await trio.sleep_forever()

        path: Path = await nursery.start(serve)
        async with page(path, "slow", "numbers") as shown:
            await shown.event()
            nursery.cancel_scope.cancel(reason="the admin side ends")
            with trio.CancelScope(shield=True), pytest.raises(trio.BrokenResourceError):
                while True:
                    await shown.block()
    assert source.was_cancelled.is_set()


@pytest.mark.parametrize(
    ("method", "target", "status", "said"),
    [
        ("GET", "/events", 400, b"Name topics, /events?topic=NAME; they are broken, numbers, slow."),
        ("GET", "/events?topic=other", 400, b"they are broken, numbers, slow."),
        ("GET", "/events?topic=numbers&topic=other", 400, b"they are broken, numbers, slow."),
        ("GET", f"/events?{'topic=numbers&' * 17}", 400, b"Name topics"),
        ("HEAD", "/events?topic=numbers", 200, b""),
        ("POST", "/events?topic=numbers", 405, b"Send GET."),
    ],
)
async def test_a_request_for_events_names_known_topics(
    method: str, target: str, status: int, said: bytes, tmp_path: Path
) -> None:
    async with serving(tmp_path, Live()) as path:
        received, content = await ask_admin_bytes(path, method, target)
    assert (received, said in content) == (status, True), content
