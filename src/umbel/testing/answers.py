"""What answers the requests of one upstream: a script for all of them, one for each path, or a cassette."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from .received import UpstreamRequest
from .script import CONNECTING, Answer, Failure, Function, Position, Script, Turn, as_script


class UnscriptedRequestError(AssertionError):
    """The gateway has made a request for which the test has no answer."""


@runtime_checkable
class Answers(Protocol):
    """What answers the requests of one upstream, in the order of their arrival."""

    def take(self, request: UpstreamRequest) -> Turn:
        """The turn of ``request``, which is used up with that.

        Raises:
            UnscriptedRequestError: there is no answer for the request.
        """
        ...

    def take_refusal(self, waiting: int) -> tuple[float, Failure] | None:
        """The pause and the failure of a connection that is dialled now; None: it is made.

        ``waiting``: how many connections have been made whose first request has not arrived.
        """
        ...

    def ends_connection(self, *, kept: bool = True) -> bool:
        """Whether what comes next needs a new connection; ``kept``: than one that has had a request."""
        ...


Handler = Script | Function | Mapping[str, "Script | Function"] | Answers
"""What a test gives for an upstream."""


def answers_of(name: str, handler: Handler) -> Answers:
    """The answers of the upstream ``name``.

    Raises:
        TypeError, ValueError: ``handler`` cannot answer.
    """
    if isinstance(handler, Mapping):
        return _PathAnswers(name, handler)
    return handler if isinstance(handler, Answers) else _ScriptAnswers(handler)


class _ScriptAnswers:
    """One script for all requests."""

    def __init__(self, handler: Script | Function) -> None:
        self._position = Position(as_script(handler))

    def take(self, request: UpstreamRequest) -> Turn:
        # A failure of connecting is left for the next connection that is dialled.
        return self._position.take(self._ahead_with_request() or 0)

    def take_refusal(self, waiting: int) -> tuple[float, Failure] | None:
        # The requests of the connections that wait come first.
        answer = self._position.coming(waiting).answer
        if not isinstance(answer, Failure) or not _is_connecting(answer):
            return None
        return self._position.take(waiting).pause, answer

    def ends_connection(self, *, kept: bool = True) -> bool:
        answer = self._position.coming().answer
        if kept:
            return _is_connecting(answer) or answer == Failure("reset")
        return self._ahead_with_request() is None

    def _ahead_with_request(self) -> int | None:
        """How many turns are ahead of the first one that takes a request; None: there is no such turn."""
        for ahead in range(len(self._position.turns)):
            if not _is_connecting(self._position.coming(ahead).answer):
                return ahead
        return None


class _PathAnswers:
    """A script for each path, or for each method and path."""

    def __init__(self, name: str, handlers: Mapping[str, Script | Function]) -> None:
        self._name = name
        self._positions = {key: Position(as_script(each)) for key, each in handlers.items()}
        for key, position in self._positions.items():
            if any(_is_connecting(turn.answer) for turn in position.turns):
                raise ValueError(f"the answer for {key!r} fails before a request is sent, so it has no path")

    def take(self, request: UpstreamRequest) -> Turn:
        for key in (f"{request.method} {request.path}", request.path):
            if (found := self._positions.get(key)) is not None:
                return found.take()
        known = ", ".join(self._positions) or "none"
        raise UnscriptedRequestError(
            f"the upstream {self._name!r} has no answer for {request.method} {request.path}; it has answers for {known}"
        )

    def take_refusal(self, waiting: int) -> tuple[float, Failure] | None:
        return None

    def ends_connection(self, *, kept: bool = True) -> bool:
        return False


def _is_connecting(answer: Answer) -> bool:
    """Whether an answer is a failure before a request is sent."""
    return isinstance(answer, Failure) and answer.name in CONNECTING
