"""What every layer is: a transport that wraps another and lives exactly as long as it.

The base of the layers of this package; it adds no policy of its own.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import httpx


class Layer(httpx.AsyncBaseTransport):
    """A transport around ``transport``. Entering or closing it enters or closes the one below."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the transport below."""
        await self._transport.aclose()
