"""The answer of a site that an operator or a learner opens: it is sent whole, to a client that has a bounded time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ..core.problem import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from ..core.inbound import Field, InboundRequest

ANSWER_S = 5.0
"""The time limit in seconds for a client to take the whole answer."""
HTML, JSON = b"text/html; charset=utf-8", b"application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer."""

    status: int
    content_type: bytes
    body: bytes
    fields: tuple[Field, ...] = ()


def problem_answer(status: int, detail: str, *fields: Field) -> Answer:
    """An error as a problem document (RFC 9457)."""
    return Answer(status, CONTENT_TYPE.encode(), Problem(status, detail).encode(), fields)


async def send_answer(request: InboundRequest, answer: Answer, common: Iterable[Field]) -> None:
    """Send the answer; cut it if the client does not take it within ``ANSWER_S``.

    ``common`` are the fields of every answer of the site; a field of the answer with the same name replaces one.

    Raises:
        ClientGoneError: the client has left.
    """
    own = {name for name, _ in answer.fields}
    fields = [(b"content-type", answer.content_type), *answer.fields, *(each for each in common if each[0] not in own)]
    if not request.respond(answer.status, fields, answer.body):
        with trio.move_on_after(ANSWER_S) as writing:
            await request.drained()
        if writing.cancelled_caught:
            request.cut("the client reads too slowly")
