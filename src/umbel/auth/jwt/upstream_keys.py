"""Fetches of key sets through an upstream of the gateway, with its policies, limits and connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...core.call import CallContext, Caller, PreparedRequest, SingleCallOwner, block_of
from ...core.errors import UpstreamError
from ...core.events import NULL, Recorder
from .discovery import origin_of
from .key_set import SIZE_MAX
from .key_source import FETCH_SECONDS, FetchError

if TYPE_CHECKING:
    from ...config.schema.sections import Upstream

CALL = "keys"
"""The name of the call in records."""
_FIELDS = block_of([("accept", "application/jwk-set+json, application/json")])


class UpstreamKeys:
    """An upstream that has key sets; ``key_source.KeyUpstream``.

    A fetch is a call like those of compositions, without an inbound request. Redirects are not followed.

    Args:
        name: the name of the upstream.
        config: its section.
        caller: makes the calls.
        recorder: gets the events of the calls.
    """

    def __init__(self, name: str, config: Upstream, caller: Caller, recorder: Recorder = NULL) -> None:
        self._name = name
        self._caller = caller
        self._recorder = recorder
        self._limit = min(FETCH_SECONDS, config.timeout or FETCH_SECONDS)
        urls = [each.url.removeprefix("dns+") for each in config.replicas]
        self.origins = frozenset(filter(None, map(origin_of, urls)))

    async def fetch(self, path: str) -> bytes:
        """Fetch the body of a response with status 200 by GET; see ``KeyUpstream``. A cancel ends the call.

        Raises:
            FetchError: there is no such response within 5 s or the upstream's timeout, or its body is too large.
        """
        owner = SingleCallOwner()
        context = CallContext(
            owner,
            CALL,
            self._name,
            deadline=trio.current_time() + self._limit,
            recorder=self._recorder,
            limit=self._limit,
            max_body=SIZE_MAX,
            attempts=[],
        )
        ended = await owner.perform(
            self._caller.new_call(PreparedRequest("GET", path.encode("ascii"), _FIELDS), context)
        )
        error, ended.error = ended.error, None  # The traceback holds the call: keeping the error would be a cycle.
        if error is not None:
            detail = str(error) if isinstance(error, UpstreamError) else type(error).__name__
            raise FetchError(f"the call to upstream {self._name} failed: {detail}")
        if ended.status != 200:
            raise FetchError(f"the upstream {self._name} answered {ended.status}")
        return ended.content
