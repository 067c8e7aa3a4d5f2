"""HPACK encoder of a connection (RFC 7541) whose time is linear in the size of a field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack import Encoder
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

_HUFFMAN_MAX = 4096
"""Bytes of the longest field that is Huffman-coded."""
_INDEXED, _NEVER_INDEXED = 0x80, 0x10
_TABLE_SIZE_MAX = 4096
"""Bytes of the dynamic table (RFC 7541 section 4.1). The server never uses more, even if the client allows more: the
client would choose the memory of its connection, and the time that the library searches for each field."""


def _without_index(name: bytes) -> bytes:
    """The encoding, up to the value, of a field that is never indexed (RFC 7541 section 6.2.3)."""
    entry = HeaderTable.STATIC_TABLE_MAPPING.get(name)
    index = bytearray([0]) + encode_integer(len(name), 7) + name if entry is None else encode_integer(entry[0], 4)
    index[0] |= _NEVER_INDEXED
    return bytes(index)


# A value that belongs to one response would evict repeated ones from the table. A secret must not be in the table.
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
    """HPACK encoder without Huffman coding of long fields, because the library's Huffman coding is quadratic.

    ``_known`` holds the encodings of fields that are in the table with name and value, so the table bounds its size. It
    is valid while the table does not change: an added field shifts the indices, and a new table size may evict fields.
    """

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[Any, bytes] = {}

    @property
    def header_table_size(self) -> int:
        """The size of the dynamic table: what the client allows, up to ``_TABLE_SIZE_MAX``."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, _TABLE_SIZE_MAX)
        # Set to the same size again, the library would announce no change at all.
        if size != self.header_table.maxsize:
            self.header_table.maxsize = size
            self.table_size_changes.append(size)

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        """Encode a header list of pairs of bytes as a header block."""
        known, changes = self._known, b""
        if self.header_table.resized:
            known.clear()
            changes = super().encode(())  # Changes of the table size come before the first field.
        return changes + b"".join([known.get(field) or self._encode_field(field, huffman) for field in headers])

    def _encode_field(self, field: tuple[bytes, bytes], huffman: bool) -> bytes:
        """Encode a field that is not in ``_known``, and keep its encoding if it is an index of the table."""
        name, value = field
        if (beginning := _UNINDEXED.get(name)) is not None:
            return beginning + encode_integer(len(value), 7) + value
        entries = self.header_table.dynamic_entries
        size, newest = len(entries), entries[0] if entries else None
        encoded = self.add(field, False, huffman)
        if len(entries) != size or (size and entries[0] is not newest):
            self._known.clear()
        elif encoded[0] & _INDEXED:
            self._known[field] = encoded
        return encoded

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """Encode one field (RFC 7541 section 6.2), without Huffman coding above ``_HUFFMAN_MAX`` (optional, 5.2)."""
        return super().add(to_add, sensitive, huffman and len(to_add[0]) + len(to_add[1]) <= _HUFFMAN_MAX)
