"""The HPACK encoder of a connection's answers (RFC 7541): linear in a field, and quick for fields that come again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack import Encoder
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

_HUFFMAN_MAX = 4096
"""Bytes of the longest field that is Huffman-coded."""
_INDEXED, _NEVER_INDEXED = 0x80, 0x10
_KNOWN_MAX = 256
"""Fields whose bytes are kept."""


def _without_index(name: bytes) -> bytes:
    """What a field begins with that is never in the table (RFC 7541 section 6.2.3), up to its value."""
    entry = HeaderTable.STATIC_TABLE_MAPPING.get(name)
    index = bytearray([0]) + encode_integer(len(name), 7) + name if entry is None else encode_integer(entry[0], 4)
    index[0] |= _NEVER_INDEXED
    return bytes(index)


# Values that belong to one answer would push those that come again out of the table; a secret must not be in it.
_UNINDEXED = {
    name: _without_index(name)
    for name in (
        b"age",
        b"authorization",
        b"content-length",
        b"content-range",
        b"etag",
        b"last-modified",
        b"location",
        b"proxy-authorization",
        b"server-timing",
        b"set-cookie",
        b"traceparent",
        b"x-request-id",
    )
}


class LinearEncoder(Encoder):
    """HPACK that takes time linear in a field: the library's Huffman coding is quadratic in its length.

    ``_known`` has the bytes of fields that stand in the table as a whole. It holds as long as the table is the same: a
    field that is added to the table moves the others, and a change of the table's size may drop some.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Any, bytes] = {}

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        """Encode a header list of pairs of bytes."""
        known, changes = self._known, b""
        if self.header_table.resized:
            known.clear()
            changes = super().encode(())  # of the table's size, which stand before any field
        return changes + b"".join([known.get(field) or self._encode_field(field, huffman) for field in headers])

    def _encode_field(self, field: tuple[bytes, bytes], huffman: bool) -> bytes:
        name, value = field
        if (beginning := _UNINDEXED.get(name)) is not None:
            return beginning + encode_integer(len(value), 7) + value
        entries = self.header_table.dynamic_entries
        size, newest = len(entries), entries[0] if entries else None
        encoded = self.add(field, False, huffman)
        if len(entries) != size or (size and entries[0] is not newest):
            self._known.clear()
        elif encoded[0] & _INDEXED and len(self._known) < _KNOWN_MAX:
            self._known[field] = encoded
        return encoded

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """Encode a field (RFC 7541 section 6.2); coding its strings is optional (section 5.2)."""
        return super().add(to_add, sensitive, huffman and len(to_add[0]) + len(to_add[1]) <= _HUFFMAN_MAX)
