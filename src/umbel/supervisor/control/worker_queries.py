"""Queries to several workers at once, and the answers that come in time.

Each query has a number, which the answers repeat. An answer that comes after its query has ended is dropped: it says
nothing about a later query of the same type.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec
import trio

from ..master.process import Worker
from . import messages

AnswerT = TypeVar("AnswerT", bound=messages.Answer)


class WorkerQueries:
    """The pending queries."""

    def __init__(self) -> None:
        self._open: dict[int, _Query] = {}
        self._latest = 0

    @property
    def pending(self) -> int:
        """The number of queries that wait for answers."""
        return len(self._open)

    async def ask(
        self, workers: Iterable[Worker], query: messages.AnyQuery, answer: type[AnswerT], within: float
    ) -> dict[Worker, AnswerT]:
        """Send ``query`` to each worker; return the answers of type ``answer`` that come in ``within`` seconds.

        ``query`` is sent with a new number. Returns as soon as each worker has answered or ended. Workers that do not
        answer in time, or end first, are missing in the result. After a cancel, late answers are ignored.
        """
        self._latest += 1
        number = self._latest
        numbered = msgspec.structs.replace(query, query=number)
        sent = self._open[number] = _Query(set(workers))
        try:
            for worker in tuple(sent.waiting):
                worker.send(numbered)
            with trio.move_on_after(within):
                while sent.waiting:
                    await sent.changed.wait()
                    sent.changed = trio.Event()
        finally:
            del self._open[number]
        return {worker: message for worker, message in sent.answers.items() if isinstance(message, answer)}

    def on_message(self, worker: Worker, message: messages.WorkerMessage) -> None:
        """Give an answer to the query that it names, if that one still waits for this worker."""
        if not isinstance(message, messages.Answer):
            return
        sent = self._open.get(message.query)
        if sent is not None and worker in sent.waiting:
            sent.waiting.discard(worker)
            sent.answers[worker] = message
            sent.changed.set()

    def on_worker_exit(self, worker: Worker) -> None:
        """Wait no longer for answers of this worker."""
        for sent in self._open.values():
            sent.waiting.discard(worker)
            sent.changed.set()


class _Query:
    def __init__(self, waiting: set[Worker]) -> None:
        self.waiting = waiting
        self.answers: dict[Worker, messages.Answer] = {}
        self.changed = trio.Event()
