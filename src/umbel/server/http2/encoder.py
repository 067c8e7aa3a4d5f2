"""The HPACK encoder of a connection (RFC 7541): linear in the size of a field, and fast for repeated fields."""

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
"""Of the dynamic table, as RFC 7541 section 4.1 counts. A client may allow more, and need not be given it: it would
choose how much memory its connection takes, and how long the library looks for each field."""


def _without_index(name: bytes) -> bytes:
    """What a field begins with that is never in the table (RFC 7541 section 6.2.3), up to its value."""
    entry = HeaderTable.STATIC_TABLE_MAPPING.get(name)
    index = bytearray([0]) + encode_integer(len(name), 7) + name if entry is None else encode_integer(entry[0], 4)
    index[0] |= _NEVER_INDEXED
    return bytes(index)


# Values that belong to one response would push those that come again out of the table; a secret must not be in it.
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

    ``_known`` has the bytes of fields that stand in the table as a whole, so it is bounded by it. It holds as long as
    the table is the same: a field that is added to the table moves the others, and a change of the table's size may
    drop some.
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
        # The library takes the same size once more for the news that there is nothing to tell the client.
        if size != self.header_table.maxsize:
            self.header_table.maxsize = size
            self.table_size_changes.append(size)

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
        elif encoded[0] & _INDEXED:
            self._known[field] = encoded
        return encoded

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        """Encode a field (RFC 7541 section 6.2); coding its strings is optional (section 5.2)."""
        return super().add(to_add, sensitive, huffman and len(to_add[0]) + len(to_add[1]) <= _HUFFMAN_MAX)
