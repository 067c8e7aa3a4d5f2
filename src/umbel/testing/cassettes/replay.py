"""Replay: upstreams that answer from a cassette.

Theory
------
Requests are matched by upstream, method and target. Equal requests get their exchanges in the order of the recording,
and the last one again and again. A failed connection has no request, so it is replayed after as many requests as the
upstream had got before it.

*Times.* A response comes as long after its request as in the recording, and its parts with the same pauses. A recording
without bodies gives bodies of the same sizes: of JSON, ``null`` and spaces, otherwise dots.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

from ...core.diagnostics.redact import Redactor
from ..answers import Answers, UnscriptedRequestError
from ..received import UpstreamRequest
from ..script import (
    CONNECTING,
    Failure,
    FailureName,
    Piece,
    Position,
    Script,
    ScriptedResponse,
    Turn,
    delay,
    fail,
    hang,
    text,
)
from .exchange import CassetteError, Exchange, Header, decode, shown_target

_AFTER_REQUEST = frozenset({"reset", "timeout", "malformed", "too-big"})
"""The failures of an exchange with a request."""


def cassette(path: str | os.PathLike[str]) -> dict[str, Answers]:
    """What the upstreams on a cassette answer, by name, for ``gateway``. Blocks.

    A request that is not on the cassette ends the test with an ``UnscriptedRequestError``.

    Raises:
        CassetteError: the file cannot be read, or is no cassette.
    """
    header, exchanges = read(path)
    return {
        name: RecordedAnswers(name, header, [each for each in exchanges if each.upstream == name])
        for name in dict.fromkeys(each.upstream for each in exchanges)
    }


def read(path: str | os.PathLike[str]) -> tuple[Header, Sequence[Exchange]]:
    """The content of a cassette. Blocks.

    Raises:
        CassetteError: the file cannot be read, or is no cassette.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CassetteError(f"{os.fspath(path)} cannot be read: {error.strerror}") from error
    return decode(data, os.fspath(path))


class RecordedAnswers:
    """The answers of one upstream from a cassette.

    Args:
        name: the upstream.
        header: that of the cassette.
        exchanges: those of the upstream.
        strict: what comes of a request that is not on the cassette: True: it ends the test; False: a 404.
    """

    def __init__(self, name: str, header: Header, exchanges: Sequence[Exchange], *, strict: bool = True) -> None:
        self._name = name
        self._redactor = Redactor(header.redact)
        self._strict = strict
        self._taken = 0
        # By their arrival; on the cassette they stand in the order of their ends.
        arrived = sorted(exchanges, key=lambda each: each.at)
        self._refusals = deque(_refusals(arrived))
        turns: dict[tuple[str, str], list[Turn]] = {}
        for each in arrived:
            if each.method:
                turns.setdefault((each.method, each.target), []).append(_turn_of(each))
        self._positions = {key: Position(Script(tuple(found))) for key, found in turns.items()}

    def take(self, request: UpstreamRequest) -> Turn:
        """The next recorded exchange of an equal request."""
        target = shown_target(request.url.raw_path.decode("latin-1"), self._redactor)
        position = self._positions.get((request.method, target))
        if position is not None:
            self._taken += 1
            return position.take()
        sentence = f"the cassette has no response of the upstream {self._name!r} to {request.method} {target}"
        if self._strict:
            raise UnscriptedRequestError(sentence)
        return text(sentence + "\n", 404).turns[0]

    def take_refusal(self, waiting: int) -> tuple[float, Failure] | None:
        """The failure of a connection that was recorded after as many requests as have been taken or will come."""
        if not self._refuses_after(self._taken + waiting):
            return None
        # An upstream that was never reached stays so.
        return self._refusals.popleft()[1] if self._positions or len(self._refusals) > 1 else self._refusals[0][1]

    def ends_connection(self, *, kept: bool = True) -> bool:
        """Whether a failed connection was recorded next."""
        return kept and self._refuses_after(self._taken)

    def _refuses_after(self, requests: int) -> bool:
        return bool(self._refusals) and self._refusals[0][0] <= requests


def _refusals(exchanges: Iterable[Exchange]) -> Iterable[tuple[int, tuple[float, Failure]]]:
    """Yield the failed connections, each with the number of requests before it."""
    requests = 0
    for each in exchanges:
        if each.method:
            requests += 1
        else:
            yield requests, (each.ended_at, _failure_of(each, among=CONNECTING))


def _failure_of(exchange: Exchange, *, among: Iterable[str]) -> Failure:
    if exchange.failure not in among:
        raise CassetteError(f"the cassette has a failure {exchange.failure!r} where there is none of this name")
    return Failure(cast("FailureName", exchange.failure))


def _turn_of(exchange: Exchange) -> Turn:
    """The turn that replays an exchange with a request."""
    failure = _failure_of(exchange, among=_AFTER_REQUEST) if exchange.failure else None
    if not exchange.status:
        if failure is None:
            raise CassetteError("the cassette has an exchange without a response and without a failure")
        return Turn(0.0 if failure.name == "timeout" else exchange.ended_at, failure)
    fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in exchange.fields)
    contents = _contents(exchange)
    body: bytes | tuple[Piece, ...] = b"".join(contents)
    if failure is not None or any(part.at != exchange.head_at for part in exchange.parts):
        body = tuple(_pieces(exchange, contents, failure))
    return Turn(exchange.head_at, ScriptedResponse(exchange.status, fields, body))


def _pieces(exchange: Exchange, contents: Sequence[bytes], failure: Failure | None) -> Iterator[Piece]:
    """Yield the parts of a body with the pauses between them, and the failure that ends it."""
    at = exchange.head_at
    for part, content in zip(exchange.parts, contents, strict=True):
        if part.at > at:
            yield delay(part.at - at)
            at = part.at
        yield content
    if failure is not None and failure.name == "timeout":
        yield hang()
    elif failure is not None:
        # Whatever was wrong behind the head: only a reset can end a body in its middle.
        yield delay(max(0.0, exchange.ended_at - at))
        yield fail("reset")


def _contents(exchange: Exchange) -> Sequence[bytes]:
    """The bytes of each part; without bodies on the cassette as many others."""
    media_type = next((value for name, value in exchange.fields if name.lower() == "content-type"), "")
    filler = b" " if "json" in media_type else b"."
    contents = [filler * part.size if part.content is None else part.content for part in exchange.parts]
    if filler == b" " and exchange.parts and exchange.parts[0].content is None:
        size = exchange.parts[0].size
        contents[0] = (b"null" if size >= 4 else b"0").ljust(size)
    return contents
