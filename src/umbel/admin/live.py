"""Live data of an admin side: topics that open pages subscribe to, sent as server-sent events.

Theory
------
A page asks for ``/events?topic=tree&topic=workers``. Each topic has a *feed*, which all pages share. There is no task
that samples: each subscriber asks the feed for a sample that is newer than its last one. The first one to ask takes the
feed's lock, waits until the next sample is due, takes it and encodes it; the others wait for the lock and find the
sample there. So nothing runs when no page is open, a sample is taken once however many pages are open, and the end of
a page leaves nothing behind.

**Rates.** A feed takes at most one sample per ``Topic.period``. A source bounds the cost of a sample by itself.

**Slow readers.** A subscriber has no queue: while its peer does not read, it asks for no sample, and then gets the
latest one. If the peer takes nothing for ``SEND_S``, the subscriber is cut.

**Bounds.** ``SUBSCRIBERS_MAX`` open pages of an admin side; ``TOPICS_MAX`` topics of a page.

A sample that fails is an event ``failed`` with a sentence, and is reported; the feed goes on.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import trio

from ..core.inbound import ClientGoneError
from ..net.exception_groups import described

if TYPE_CHECKING:
    from ..core.inbound import Field, InboundRequest
    from .source import Report, Topic

SUBSCRIBERS_MAX = 16
"""The bound on open streams of an admin side."""
TOPICS_MAX = 16
"""The bound on topics of one stream."""
SEND_S = 5.0
"""Seconds for which a peer may take nothing."""
KEEP_ALIVE_S = 10.0
"""Seconds without an event after which a comment is sent, so that a peer that has vanished is noticed."""
RETRY_MS = 1000
"""Milliseconds after which a browser connects again."""
CONTENT_TYPE = b"text/event-stream; charset=utf-8"


class Feed:
    """The samples of one topic.

    Args:
        name: the name of its events.
        topic: gives the samples.
        report: takes failures of the topic.
    """

    def __init__(self, name: str, topic: Topic, report: Report) -> None:
        self._name = name
        self._topic = topic
        self._report = report
        self._lock = trio.Lock()
        self._number = 0
        """The number of the latest sample."""
        self._event = b""
        self._due = 0.0

    async def newer(self, than: int) -> tuple[int, bytes]:
        """Wait for a sample whose number is above ``than``; return its number and its event.

        A sample whose period is over is never given: it may be of a page that was closed an hour ago. A cancel while
        it takes a sample drops this one.
        """
        async with self._lock:
            if self._number <= than or trio.current_time() >= self._due:
                await trio.sleep_until(self._due)
                self._due = trio.current_time() + self._topic.period
                self._event = await self._sample()
                self._number += 1
            return self._number, self._event

    async def _sample(self) -> bytes:
        name = self._name
        try:
            data = msgspec.json.encode(await self._topic.sample(), enc_hook=str)
        except Exception as error:  # noqa: BLE001 - no failure of the source may end the stream
            self._report(f"admin.failed {name}", f"the admin side cannot sample {name}: {described(error)}")
            data = msgspec.json.encode({"topic": name, "detail": "The sample has failed; see the log."})
            name = "failed"
        return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


class LiveFeeds:
    """All feeds of an admin side.

    Args:
        topics: the topics by name.
        report: takes failures of topics.
    """

    def __init__(self, topics: Mapping[str, Topic], report: Report) -> None:
        self._feeds = {name: Feed(name, topic, report) for name, topic in topics.items()}
        self._open = 0

    @property
    def names(self) -> list[str]:
        """The names of the topics."""
        return sorted(self._feeds)

    @property
    def has_room(self) -> bool:
        """Whether another stream may be opened."""
        return self._open < SUBSCRIBERS_MAX

    async def stream(self, request: InboundRequest, topics: Sequence[str], fields: Sequence[Field]) -> None:
        """Send the events of ``topics`` until the client leaves or reads too slowly. A cancel ends the stream.

        Args:
            topics: names of topics, each at most once.
            fields: further fields of the response.

        Raises:
            ClientGoneError: the client has left.
        """
        self._open += 1
        try:
            request.became_stream()
            await request.start(200, [(b"content-type", CONTENT_TYPE), *fields])
            await _Stream(request).run([self._feeds[name] for name in topics])
        finally:
            self._open -= 1


class _Stream:
    """One open stream."""

    def __init__(self, request: InboundRequest) -> None:
        self._request = request
        self._sending = trio.Lock()
        self._sent_at = trio.current_time()
        self._gone = False

    async def run(self, feeds: Sequence[Feed]) -> None:
        await self._send(b"retry: %d\n\n" % RETRY_MS)
        async with trio.open_nursery() as nursery:

            def end() -> None:
                self._gone = True
                nursery.cancel_scope.cancel(reason="the page was closed")

            self._request.on_gone(end)
            self._request.on_drain(end)
            for feed in feeds:
                nursery.start_soon(self._follow, feed, end)
            nursery.start_soon(self._keep_alive, end)
        raise ClientGoneError("the page was closed")

    async def _follow(self, feed: Feed, end: Callable[[], None]) -> None:
        number = 0
        while not self._gone:
            number, event = await feed.newer(number)
            await self._send_or(event, end)

    async def _keep_alive(self, end: Callable[[], None]) -> None:
        while not self._gone:
            await trio.sleep_until(self._sent_at + KEEP_ALIVE_S)
            if trio.current_time() >= self._sent_at + KEEP_ALIVE_S:
                await self._send_or(b":\n\n", end)

    async def _send_or(self, event: bytes, end: Callable[[], None]) -> None:
        try:
            await self._send(event)
        except ClientGoneError:
            end()

    async def _send(self, event: bytes) -> None:
        """Send an event.

        Raises:
            ClientGoneError: the client has left, or took nothing for ``SEND_S``.
        """
        async with self._sending:
            with trio.move_on_after(SEND_S) as scope:
                await self._request.send(event)
            if scope.cancelled_caught:
                self._request.cut("the page reads too slowly")
                raise ClientGoneError("the page reads too slowly")
            self._sent_at = trio.current_time()
