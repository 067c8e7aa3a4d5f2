"""The files that a configuration names: made absolute where they stand, and looked at before anything is served.

Opens certificates and keys to see that TLS can use them; keeps nothing.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...core.regular_file import open_regular
from ..schema.sections import KeyPath, Tls
from .certificates import expiries
from .file_reader import SIZE_MAX, Source, why

_TLS_PATHS = ("ca", "cert", "key")


def make_absolute(source: Source, data: dict[str, Any]) -> None:
    """Make the paths in one file's data absolute, each relative to that file; odd data is left to validation."""
    upstreams = _table(data, "upstreams")
    for name in upstreams:
        _absolute(source, _table(_table(upstreams, name), "tls"), _TLS_PATHS)
    _absolute(source, _table(_table(_table(data, "defaults"), "upstream"), "tls"), _TLS_PATHS)
    _absolute(source, _table(data, "logs"), ("dir",))
    _absolute(source, _table(data, "supervisor"), ("control",))


def unusable(tables: Iterable[tuple[KeyPath, Tls]]) -> Iterator[tuple[KeyPath, str]]:
    """What TLS cannot use of the files that these tables name."""
    for path, tls in tables:
        for key, reason in _unusable_tls(tls):
            yield (*path, key), reason


def _unusable_tls(tls: Tls) -> Iterator[tuple[str, str]]:
    unread = set()
    for key in _TLS_PATHS:
        path: str | None = getattr(tls, key)
        if path is not None and (refusal := _refusal(path)):
            unread.add(key)
            yield key, f"the file cannot be read: {refusal}"
    if tls.ca is not None and "ca" not in unread and (reason := _unusable_ca(tls.ca)):
        yield "ca", reason
    if tls.cert is not None and tls.key is not None and not unread & {"cert", "key"}:
        yield from _unusable_pair(tls.cert, tls.key)


def _unusable_ca(path: str) -> str | None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "the file holds no certificate in PEM form"
    # A bundle may hold old ones beside good ones.
    if (ends := _expiries(path)) and max(ends) < datetime.now(UTC):
        return f"the certificate has expired, on {max(ends):%Y-%m-%d}"
    return None


def _unusable_pair(cert: str, key: str) -> Iterator[tuple[str, str]]:
    try:
        # Without a password function OpenSSL would ask at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            yield "key", "the key does not belong to the certificate in cert"
        elif not _expiries(cert):
            yield "cert", "the file holds no certificate in PEM form"
        else:
            yield "key", "the file holds no key in PEM form, or an encrypted one"
        return
    if (ends := _expiries(cert)) and ends[0] < datetime.now(UTC):  # the first is the client's own
        yield "cert", f"the certificate has expired, on {ends[0]:%Y-%m-%d}"


def _expiries(path: str) -> list[datetime]:
    return expiries(Path(path).read_text(encoding="utf-8", errors="replace"))


def _refusal(path: str) -> str | None:
    try:
        descriptor = open_regular(path)
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        return f"it is larger than {SIZE_MAX // 2**20}MiB" if size > SIZE_MAX else None
    except (OSError, ValueError) as error:
        return why(error)


def _absolute(source: Source, table: dict[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if isinstance(value := table.get(key), str):
            table[key] = str(source.directory / value)


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
