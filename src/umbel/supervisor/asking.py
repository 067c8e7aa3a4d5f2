"""Questions to all workers at once, and their answers, as far as they come in time.

It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import trio

from . import messages
from .process import Worker

AnswerT = TypeVar("AnswerT", bound=messages.Message)


class Asking:
    """The questions that wait for answers."""

    def __init__(self) -> None:
        self._open: list[_Question] = []

    @property
    def waiting(self) -> int:
        """How many questions wait."""
        return len(self._open)

    async def ask(
        self, workers: Iterable[Worker], question: messages.Down, answer: type[AnswerT], within: float
    ) -> dict[Worker, AnswerT]:
        """What each worker answers within so many seconds; those that do not answer are missing."""
        asked = _Question(answer, set(workers))
        self._open.append(asked)
        try:
            for worker in asked.waiting:
                worker.send(question)
            with trio.move_on_after(within):
                while asked.waiting:
                    await asked.changed.wait()
                    asked.changed = trio.Event()
        finally:
            self._open.remove(asked)
        return {worker: message for worker, message in asked.answers.items() if isinstance(message, answer)}

    def heard(self, worker: Worker, message: messages.Up) -> None:
        """Take a message that may be an answer; the first question that waits for it gets it."""
        for asked in self._open:
            if isinstance(message, asked.answer) and worker in asked.waiting:
                asked.waiting.discard(worker)
                asked.answers[worker] = message
                asked.changed.set()
                return

    def ended(self, worker: Worker) -> None:
        """It will answer nothing any more."""
        for asked in self._open:
            asked.waiting.discard(worker)
            asked.changed.set()


class _Question:
    def __init__(self, answer: type[messages.Message], waiting: set[Worker]) -> None:
        self.answer = answer
        self.waiting = waiting
        self.answers: dict[Worker, messages.Up] = {}
        self.changed = trio.Event()
