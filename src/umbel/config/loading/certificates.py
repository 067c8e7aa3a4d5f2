"""When a certificate ends: the one thing about it that the standard library does not tell.

Used on files that OpenSSL has accepted. Reads as much DER (X.690) as leads to the date, and no more.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

# The content ends at the first five hyphens, so that a text of many beginnings is gone through once.
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(?:[^-]++|-(?!----))++-----END CERTIFICATE-----")
_EXPLICIT_VERSION = 0xA0
_UTC_TIME = 0x17


def expiries(pem: str) -> list[datetime]:
    """The end of each certificate in a PEM text, in their order (RFC 5280 section 4.1.2.5)."""
    return [_not_after(ssl.PEM_cert_to_DER_cert(match[0])) for match in _PEM.finditer(pem)]


def _not_after(der: bytes) -> datetime:
    (_, certificate), *_ = _elements(der)
    (_, to_be_signed), *_ = _elements(certificate)
    fields = [element for element in _elements(to_be_signed) if element[0] != _EXPLICIT_VERSION]
    _serial, _algorithm, _issuer, (_, validity), *_ = fields
    _, (tag, date) = _elements(validity)
    text = date.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each element that stands in ``content``."""
    at = 0
    while at < len(content):
        tag, length = content[at], content[at + 1]
        at += 2
        if length & 0x80:  # the long form: so many bytes of length follow
            more = length & 0x7F
            length = int.from_bytes(content[at : at + more], "big")
            at += more
        yield tag, content[at : at + length]
        at += length
