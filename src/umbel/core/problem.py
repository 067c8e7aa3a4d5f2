"""Problem documents (RFC 9457), the bodies of all error responses.

A problem document must never contain the text of an exception, an address of an upstream, or a version.
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
    """Member of ``calls`` in a problem document: a failed call."""

    name: str
    kind: Kind
    status: int
    """The status of the answer if this failure decided it."""
    elapsed_ms: float
    """The call's duration in milliseconds."""
    received_status: int | None = None
    """The status of the upstream's response; None without a response."""

    def member(self) -> dict[str, Json]:
        """The failed call as a JSON object."""
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
    """Problem document. Of its members, an empty ``detail``, ``request_id`` and ``calls`` are left out."""

    status: int
    detail: str = ""
    """One sentence for the client."""
    title: str = ""
    """The title; empty: the reason phrase of ``status``."""
    kind: str = ""
    """Becomes ``type``, such as ``urn:umbel:problem:timeout``, which is no address; empty: ``about:blank``."""
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
        """The document as JSON text."""
        return msgspec.json.encode(self.document())


def phrase(status: int) -> str:
    """The reason phrase of a status in RFC 9110, or a generic one. (Those of ``http`` depend on Python's version.)"""
    if status in _PHRASES:
        return _PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else f"Status {status}"
