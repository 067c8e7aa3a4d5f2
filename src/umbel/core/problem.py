"""Problem documents, the form of all error bodies (RFC 9457).

A document never holds exception text, an upstream's address or a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from .failure_kinds import Kind
from .model import Json

_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FailedCall:
    """One member of the document's ``calls``: which call failed, how, after how long, and what its upstream said."""

    name: str
    kind: Kind
    status: int
    elapsed_ms: float
    received_status: int | None = None
    """The upstream's own status, where one was received; ``status`` is what that makes of an answer."""

    def member(self) -> dict[str, Json]:
        """The JSON object."""
        received = {} if self.received_status is None else {"received_status": self.received_status}
        return {
            "name": self.name,
            "kind": str(self.kind),
            "status": self.status,
            **received,
            "elapsed_ms": round(self.elapsed_ms, 1),
        }


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document. ``kind`` becomes the ``type``: ``urn:umbel:problem:timeout``, a name and no address."""

    status: int
    detail: str = ""
    title: str = ""
    kind: str = ""
    request_id: str = ""
    calls: Sequence[FailedCall] = ()

    def document(self) -> dict[str, Json]:
        """The members of the JSON object, in the order of RFC 9457."""
        members: dict[str, Json] = {
            "type": f"urn:umbel:problem:{self.kind}" if self.kind else "about:blank",
            "title": self.title or phrase(self.status),
            "status": self.status,
        }
        if self.detail:
            members["detail"] = self.detail
        if self.request_id:
            members["instance"] = f"urn:umbel:request:{self.request_id}"
            members["request_id"] = self.request_id
        if self.calls:
            members["calls"] = [call.member() for call in self.calls]
        return members

    def encode(self) -> bytes:
        """The document as JSON."""
        return msgspec.json.encode(self.document())


def phrase(status: int) -> str:
    """The reason phrase of a status as RFC 9110 has it (Python's own is of the version), or a plain one."""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else f"Status {status}"
