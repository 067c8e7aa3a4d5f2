"""Check of the certificates and keys that a configuration names: readable, PEM, not expired, and matching pairs.

OpenSSL loads each file, and nothing is kept. The standard library does not show when a certificate expires, so the date
is parsed from the DER encoding (X.690), as far as needed to find it.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from ...core.regular_file import open_regular
from ..schema.sections import KeyPath, Tls
from .file_reader import SIZE_MAX, why

TLS_PATHS = ("ca", "cert", "key")
"""The keys of a TLS table that name files."""

# The content ends at the first five hyphens, so that a text with many BEGIN lines takes linear time.
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(?:[^-]++|-(?!----))++-----END CERTIFICATE-----")
_EXPLICIT_VERSION = 0xA0
_UTC_TIME = 0x17


def certificate_errors(tables: Iterable[tuple[KeyPath, Tls]]) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of each key whose file TLS cannot use, with the reason.

    Reasons: the file is unreadable, is not PEM, has expired, or certificate and key are no pair.
    """
    for path, tls in tables:
        for key, reason in _unusable_tls(tls):
            yield (*path, key), reason


def _unusable_tls(tls: Tls) -> Iterator[tuple[str, str]]:
    unread = set()
    for key in TLS_PATHS:
        path: str | None = getattr(tls, key)
        if path is not None and (unreadable := _why_unreadable(path)):
            unread.add(key)
            yield key, f"the file cannot be read: {unreadable}"
    if tls.ca is not None and "ca" not in unread and (reason := _unusable_ca(tls.ca)):
        yield "ca", reason
    if tls.cert is not None and tls.key is not None and not unread & {"cert", "key"}:
        yield from _unusable_pair(tls.cert, tls.key)


def _unusable_ca(path: str) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "the file holds no certificate in PEM form"
    # A bundle may hold expired certificates beside valid ones, so the last date counts.
    if (ends := _expiry_dates_of(path)) and max(ends) < datetime.now(UTC):
        return f"the certificate has expired, on {max(ends):%Y-%m-%d}"
    return None


def _unusable_pair(cert: str, key: str) -> Iterator[tuple[str, str]]:
    try:
        # Without a password function OpenSSL asks for the password at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield "key", "the key does not belong to the certificate in cert"
        elif not _expiry_dates_of(cert):
            yield "cert", "the file holds no certificate in PEM form"
        else:
            yield "key", "the file holds no key in PEM form, or an encrypted one"
        return
    if (ends := _expiry_dates_of(cert)) and ends[0] < datetime.now(UTC):  # The first one is the client's certificate.
        yield "cert", f"the certificate has expired, on {ends[0]:%Y-%m-%d}"


def _expiry_dates_of(path: str) -> list[datetime]:
    return expiry_dates(Path(path).read_text(encoding="utf-8", errors="replace"))


def _why_unreadable(path: str) -> str | None:
    try:
        descriptor = open_regular(path)
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        return f"it is larger than {SIZE_MAX // 2**20}MiB" if size > SIZE_MAX else None
    except (OSError, ValueError) as error:
        return why(error)


def expiry_dates(pem: str) -> list[datetime]:
    """Return the date on which each certificate in a PEM text expires, in their order (RFC 5280 section 4.1.2.5).

    OpenSSL must have accepted the text.
    """
    return [_not_after(ssl.PEM_cert_to_DER_cert(match[0])) for match in _PEM.finditer(pem)]


def _not_after(der: bytes) -> datetime:
    (_, certificate), *_ = _elements(der)
    (_, to_be_signed), *_ = _elements(certificate)
    fields = [element for element in _elements(to_be_signed) if element[0] != _EXPLICIT_VERSION]
    _serial, _algorithm, _issuer, (_, validity), *_ = fields
    _, (tag, date) = _elements(validity)
    text = date.decode("ascii")
    if tag == _UTC_TIME:  # The year has two digits; 50 to 99 mean 1950 to 1999.
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each DER element in ``content``."""
    at = 0
    while at < len(content):
        tag, length = content[at], content[at + 1]
        at += 2
        if length & 0x80:  # The long form: the other bits are the number of length bytes that follow.
            more = length & 0x7F
            length = int.from_bytes(content[at : at + more], "big")
            at += more
        yield tag, content[at : at + length]
        at += length
