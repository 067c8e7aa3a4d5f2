"""Changes of the header fields of a message that is passed on: hop-by-hop fields, and the configured rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ...core.http.header_field import Field
from ...core.http.hop_by_hop import HOP_BY_HOP, is_hop_by_hop, named_by
from ...core.model import Json
from ..request.request_template import RequestField
from ..text.field_template import OnLeftOut

_CONNECTION = b"connection"
_FRAMING = frozenset({b"content-length", b"host"})
"""Fields that Connection cannot make hop-by-hop: without them a message would mean something else."""


def named_by_connection(fields: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The names, in lower case, that the Connection fields among ``fields`` (name, value) make hop-by-hop."""
    named: frozenset[bytes] = frozenset()
    for name, value in fields:
        if len(name) == len(_CONNECTION) and name.lower() == _CONNECTION:
            named |= named_by(value)
    return named - _FRAMING


def end_to_end(fields: Sequence[Field]) -> list[Field]:
    """The end-to-end fields of a response: without hop-by-hop fields and those that Connection names.

    Without a Content-Length beside Transfer-Encoding too: only the latter counts (RFC 9112 section 6.3).
    """
    named: frozenset[bytes] = frozenset()
    chunked = False
    kept = []
    for field in fields:  # One pass, since this runs for each response.
        _, lower, value = field
        if lower in HOP_BY_HOP:
            if lower == _CONNECTION:
                named |= named_by(value)
            chunked = chunked or lower == b"transfer-encoding"
        elif not (lower.startswith(b"proxy-") and is_hop_by_hop(lower)):
            kept.append(field)
    if named:
        kept = without(kept, named - _FRAMING)
    return without(kept, (b"content-length",)) if chunked else kept


def without(fields: Sequence[Field], names: Collection[bytes]) -> list[Field]:
    """The fields whose names are not among ``names`` (in lower case)."""
    return [field for field in fields if field[1] not in names]


class FieldChanges(NamedTuple):
    """The compiled form of a ``FieldRules`` table."""

    dropped: frozenset[bytes]
    """The names that ``remove`` and ``set`` have, in lower case."""
    set: tuple[RequestField, ...]
    add: tuple[RequestField, ...]

    def apply(self, fields: list[Field], context: Mapping[str, Json], left_out: OnLeftOut) -> list[Field]:
        """The fields after the changes. A field whose template gives no value is left out.

        ``set`` drops the fields of its names also then: a client cannot send its own value in the place of one that is
        left out.
        """
        if self.dropped:
            fields = without(fields, self.dropped)
        if self.set or self.add:
            fields = [*fields, *expanded(self.set, context, left_out), *expanded(self.add, context, left_out)]
        return fields


def expanded(templates: Sequence[RequestField], context: Mapping[str, Json], left_out: OnLeftOut) -> list[Field]:
    """The fields that ``templates`` make, without those that have no value."""
    fields: list[Field] = []
    for name, text, fixed in templates:
        if fixed is not None:
            fields.append(fixed)
        elif (value := text.expand(context, {}, left_out)) is not None:
            fields.append((name, name, value))
    return fields
