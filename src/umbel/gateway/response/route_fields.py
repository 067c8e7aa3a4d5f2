"""Header fields of the responses of a route, of which only some values are made for each response."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...core.inbound import PreparedFields
from ...net.bounded_cache import BoundedCache

if TYPE_CHECKING:
    from ..browsers.browser_fields import BrowserFields
    from ..request.client_origin import ClientOrigin

REQUEST_ID = b"x-request-id"
_CLIENTS_MAX, _CLIENT_SIZE = 64, 256
_OWN = b"\0"
"""Stands for a value that each response has of its own. No field has it, since HTTP forbids it."""
_Key = tuple["BrowserFields", tuple[str, str]]


class RouteFields(PreparedFields):
    """The fields of responses before they are complete, and what they become for each kind of client.

    The server encodes the complete ones once, so that a response costs one format of its own values.
    """

    __slots__ = ("_completed", "_extended")

    def __init__(self, fields: Iterable[tuple[bytes, bytes | None]]) -> None:
        PreparedFields.__init__(self, fields)
        self._extended: dict[PreparedFields, RouteFields] = {}
        self._completed: BoundedCache[_Key, PreparedFields | None] = BoundedCache(
            _CLIENTS_MAX, _CLIENT_SIZE, size_of=lambda key: len(key[1][1])
        )

    def extended(self, more: PreparedFields) -> RouteFields:
        """These fields, then ``more``, which must be one of a few: each result is kept."""
        extended = self._extended.get(more)
        if extended is None:
            extended = self._extended[more] = RouteFields((*self.fields, *more.fields))
        return extended

    def completed(self, browser_fields: BrowserFields, client: ClientOrigin) -> PreparedFields | None:
        """These fields, then X-Request-Id, whose value is one more of each response, and the fields for browsers.

        None if the fields for browsers remove or change one whose value each response has of its own.
        """
        key = browser_fields, browser_fields.key_of(client)
        known = self._completed.entries
        return known[key] if key in known else self._complete(key, client)

    def _complete(self, key: _Key, client: ClientOrigin) -> PreparedFields | None:
        given = [(name, _OWN if value is None else value) for name, value in (*self.fields, (REQUEST_ID, None))]
        fields = [*given]
        key[0].add(fields, client)
        unchanged = [field for field in fields if field[1] == _OWN] == [field for field in given if field[1] == _OWN]
        completed = [(name, None if value == _OWN else value) for name, value in fields]
        prepared = PreparedFields(completed) if unchanged else None
        self._completed.add(key, prepared)
        return prepared
