"""The exchanges on a cassette: a request's method and target with the response, and the times of both. The file format.

Theory
------
A cassette is a file of JSON lines: a ``Header``, then an ``Exchange`` for each request, in the order of their ends.

*What is never on it*: the header fields and the body of a request, and of a response the fields in ``NEVER`` and those
about the connection. Secrets in targets and in fields are hidden as in the logs. Bodies are there only if the recording
was asked for them, and then as they are; otherwise their sizes are, with the times at which the pieces came.

*Times* are seconds, rounded to microseconds; those of an exchange count from the arrival of its request.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence

import msgspec

from ...core.diagnostics.redact import REDACTED, Redactor
from ...core.errors import UmbelError

VERSION = 1
NEVER = frozenset({"authorization", "proxy-authorization", "set-cookie", "set-cookie2", "www-authenticate"})
"""Response fields that are left out, whatever their values are."""
_OF_CONNECTION = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length"}
)


class CassetteError(UmbelError):
    """A cassette cannot be read; the message says why."""


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line of a cassette."""

    umbel_cassette: int
    """The version of the format."""
    bodies: bool = False
    """Whether the cassette has the bodies of the responses."""
    redact: tuple[str, ...] = ()
    """The secret names of the configuration (``[logs] redact``), which also hide parts of targets."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part of a body that came at once."""

    at: float
    size: int
    text: str | None = None
    """The bytes as UTF-8; None: see ``base64``."""
    base64: str | None = None
    """The bytes, if they are no UTF-8; None in both: the cassette has no bodies."""

    @classmethod
    def of(cls, at: float, data: bytes, *, bodies: bool) -> Part:
        """The part of ``data``, which came at ``at``."""
        at = round(at, 6)
        if not bodies:
            return cls(at, len(data))
        try:
            return cls(at, len(data), data.decode())
        except UnicodeDecodeError:
            return cls(at, len(data), None, b64encode(data).decode("ascii"))

    @property
    def content(self) -> bytes | None:
        """The bytes; None: the cassette has no bodies."""
        if self.text is not None:
            return self.text.encode()
        return None if self.base64 is None else b64decode(self.base64)


class Exchange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to an upstream and what came of it, or a connection that failed (``method`` is empty)."""

    upstream: str
    at: float
    """When the request arrived, or the connection was begun, in seconds from the start of the recording."""
    method: str = ""
    target: str = ""
    """Path and query, with secrets hidden."""
    status: int = 0
    """The status of the response; 0 without a head."""
    head_at: float = 0.0
    """When the head of the response had come."""
    fields: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] = ()
    failure: str = ""
    """How the exchange failed: a name that ``umbel.testing.fail`` takes. ``timeout``: the gateway gave it up."""
    ended_at: float = 0.0
    """When the exchange ended."""


def shown_target(target: str, redactor: Redactor) -> str:
    """A target as it is on a cassette."""
    return redactor.text(target)


def shown_fields(
    fields: Iterable[tuple[bytes, bytes]], redactor: Redactor, *, bodies: bool
) -> tuple[tuple[str, str], ...]:
    """The fields of a response as they are on a cassette. ``bodies``: its body is there too, as it was coded."""
    shown = []
    left_out = NEVER | _OF_CONNECTION if bodies else NEVER | _OF_CONNECTION | {"content-encoding"}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name.lower() in left_out:
            continue
        shown.append((name, REDACTED if redactor.is_secret(name) else redactor.text(value)))
    return tuple(shown)


def encode(line: Header | Exchange) -> bytes:
    """A line of a cassette."""
    return msgspec.json.encode(line) + b"\n"


def decode(data: bytes, name: str) -> tuple[Header, Sequence[Exchange]]:
    """The content of a cassette; ``name`` is the file's name in messages. An unfinished last line is left out.

    Raises:
        CassetteError: it is no cassette, of another version, or damaged.
    """
    first, *lines = data.split(b"\n")
    try:
        header = msgspec.json.decode(first, type=Header)
    except msgspec.DecodeError as error:
        raise CassetteError(f"{name} is no cassette; umbel record writes one") from error
    if header.umbel_cassette != VERSION:
        raise CassetteError(f"{name} has version {header.umbel_cassette}; this Umbel reads version {VERSION}")
    exchanges = []
    for number, line in enumerate(lines[:-1], 2):
        try:
            exchanges.append(msgspec.json.decode(line, type=Exchange))
        except msgspec.DecodeError as error:
            raise CassetteError(f"{name}:{number}: is no recorded exchange: {error}") from error
    return header, exchanges
