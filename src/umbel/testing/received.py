"""The requests that scripted upstreams have received."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec


class UpstreamRequest(httpx.Request):
    """A request as an upstream received it: httpx's ``method``, ``url``, ``headers`` and ``content``, and more.

    Args:
        method: the method.
        url: the URL, with the host and port of the replica that got the request.
        headers: the header fields in their order.
        body: the whole body.
        upstream: the name of the upstream.
        at: when the request had arrived, in seconds of trio's clock.
    """

    def __init__(
        self, method: str, url: httpx.URL, headers: list[tuple[bytes, bytes]], body: bytes, *, upstream: str, at: float
    ) -> None:
        # With ``stream`` httpx adds no fields of its own.
        super().__init__(method, url, headers=headers, stream=httpx.ByteStream(body))
        self.read()
        self.upstream = upstream
        self.at = at

    @property
    def path(self) -> str:
        """The path of the URL, percent-decoded."""
        return self.url.path

    @property
    def params(self) -> httpx.QueryParams:
        """The query parameters."""
        return self.url.params

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: the body is no JSON.
        """
        return msgspec.json.decode(self.content)
