"""Problem documents: the one form of every error body (RFC 9457).

Used by whoever answers with an error. A document never holds exception text, an upstream's address or a version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from .kinds import Kind
from .model import Json

_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}

CONTENT_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FailedCall:
    """One member of the document's ``calls``: which call failed, how, and after how long."""

    name: str
    kind: Kind
    status: int
    elapsed_ms: float


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
            members["calls"] = [
                {
                    "name": c.name,
                    "kind": str(c.kind),
                    "status": c.status,
                    "elapsed_ms": round(c.elapsed_ms, 1),
                }
                for c in self.calls
            ]
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
