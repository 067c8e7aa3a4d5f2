from __future__ import annotations

import httpx
import pytest

from tests.support.layers import Pieces
from umbel.upstream.watched import Watched


def watched(stream: httpx.AsyncByteStream) -> tuple[httpx.Response, list[BaseException | None]]:
    ends: list[BaseException | None] = []
    response = httpx.Response(200, stream=stream)
    response.stream = Watched(response, ends.append)
    return response, ends


async def test_its_end_is_told_once_when_it_is_closed() -> None:
    response, ends = watched(Pieces())
    assert await response.aread() == b"piece" * 3
    assert ends == [None]
    await response.aclose()
    assert ends == [None]


async def test_leaving_it_in_the_middle_is_an_end_like_any_other() -> None:
    stream = Pieces()
    response, ends = watched(stream)
    assert isinstance(response.stream, Watched)
    async for piece in response.stream:
        assert piece == b"piece"
        break
    assert ends == []
    await response.aclose()
    assert ends == [None]
    assert stream.closed


async def test_what_broke_it_is_told_once_it_is_closed() -> None:
    error = httpx.ReadError("broke")
    response, ends = watched(Pieces(error))
    with pytest.raises(httpx.ReadError):
        await response.aread()
    await response.aclose()
    assert ends == [error]


async def test_it_is_over_also_where_closing_fails() -> None:
    class Stuck(Pieces):
        async def aclose(self) -> None:
            raise RuntimeError("stuck")

    response, ends = watched(Stuck())
    with pytest.raises(RuntimeError, match="stuck"):
        await response.aclose()
    assert ends == [None]
