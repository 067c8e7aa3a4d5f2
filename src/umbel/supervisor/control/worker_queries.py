"""Queries to several workers at once, and the answers that come in time.

Messages carry no query number. An answer is given to the oldest query that waits for one of its type from this worker.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import trio

from ..master.process import Worker
from . import messages

AnswerT = TypeVar("AnswerT", bound=messages.Message)


class WorkerQueries:
    """The pending queries."""

    def __init__(self) -> None:
        self._open: list[_Query] = []

    @property
    def pending(self) -> int:
        """The number of queries that wait for answers."""
        return len(self._open)

    async def ask(
        self, workers: Iterable[Worker], query: messages.MasterMessage, answer: type[AnswerT], within: float
    ) -> dict[Worker, AnswerT]:
        """Send ``query`` to each worker; return the answers of type ``answer`` that come in ``within`` seconds.

        Workers that do not answer in time, or end, are missing in the result. A cancel forgets the query.
        """
        sent = _Query(answer, set(workers))
        self._open.append(sent)
        try:
            for worker in sent.waiting:
                worker.send(query)
            with trio.move_on_after(within):
                while sent.waiting:
                    await sent.changed.wait()
                    sent.changed = trio.Event()
        finally:
            self._open.remove(sent)
        return {worker: message for worker, message in sent.answers.items() if isinstance(message, answer)}

    def on_message(self, worker: Worker, message: messages.WorkerMessage) -> None:
        """Give a message to the oldest query that waits for an answer of its type from this worker, if any."""
        for sent in self._open:
            if isinstance(message, sent.answer) and worker in sent.waiting:
                sent.waiting.discard(worker)
                sent.answers[worker] = message
                sent.changed.set()
                return

    def on_worker_exit(self, worker: Worker) -> None:
        """Wait no longer for answers of this worker."""
        for sent in self._open:
            sent.waiting.discard(worker)
            sent.changed.set()


class _Query:
    def __init__(self, answer: type[messages.Message], waiting: set[Worker]) -> None:
        self.answer = answer
        self.waiting = waiting
        self.answers: dict[Worker, messages.WorkerMessage] = {}
        self.changed = trio.Event()
