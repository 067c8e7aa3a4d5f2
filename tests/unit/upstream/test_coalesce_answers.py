"""Answers that are not for everybody, and failures that are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import trio
import trio.testing

from tests.support.coalescing import Bottom, answering, asking, call_facts, together
from umbel.kinds import Kind
from umbel.upstream.coalesce import Coalesce, CoalesceStatistics
from umbel.upstream.errors import ConnectFailed, ConnectionReset

# What is not shared


@pytest.mark.parametrize(
    "headers",
    [
        [("Set-Cookie", "id=1")],
        [("Cache-Control", "private")],
        [("cache-control", "max-age=5, Private")],
        [("cache-control", "max-age=5"), ("cache-control", 'private="x-a", no-cache')],
    ],
)
async def test_an_answer_for_one_alone_goes_to_one_and_the_others_ask_for_themselves(
    headers: list[tuple[str, str]], autojump_clock
) -> None:
    bottom = Bottom(answering(headers=headers))
    async with Coalesce(bottom) as coalesce:
        facts = [call_facts(str(number)) for number in range(3)]
        requests = [asking(each) for each in facts]
        answers = await together(coalesce, *requests)
        assert trio.current_time() == facts[0].request.started_at + 2.0
        assert len({id(each) for each in answers}) == 3
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 1, 2, 2, 0, 0)
    assert len(bottom.requests) == 3
    assert sum(each in requests for each in bottom.requests) == 2, "with their own requests"


@pytest.mark.parametrize("value", ["public", "max-age=5", 'no-cache="x-private"', "x-private", "privately"])
async def test_what_only_looks_like_private_is_shared(value: str, autojump_clock) -> None:
    bottom = Bottom(answering(headers=[("cache-control", value)]))
    async with Coalesce(bottom) as coalesce:
        await together(coalesce, asking(), asking())
    assert len(bottom.requests) == 1


class _Body(httpx.AsyncByteStream):
    def __init__(self, pieces: int) -> None:
        self._pieces = pieces
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._pieces):
            await trio.sleep(1)
            yield b"12345"

    async def aclose(self) -> None:
        self.closed += 1


async def test_an_answer_that_nobody_has_read_is_read_once_and_left_coded(autojump_clock) -> None:
    bodies: list[_Body] = []

    async def act(request: httpx.Request) -> httpx.Response:
        bodies.append(_Body(2))
        return httpx.Response(200, headers={"content-encoding": "x"}, stream=bodies[-1], extensions={"a": 1})

    async with Coalesce(Bottom(act), max_body=10) as coalesce:
        answers = await together(coalesce, asking(), asking())
        assert [await each.aread() for each in answers] == [b"1234512345"] * 2
        assert [each.extensions for each in answers] == [{"a": 1}] * 2
        assert [body.closed for body in bodies] == [1]


async def test_an_answer_too_long_to_be_kept_is_closed_and_each_asks_for_itself(autojump_clock) -> None:
    bodies: list[_Body] = []

    async def act(request: httpx.Request) -> httpx.Response:
        bodies.append(_Body(3))
        return httpx.Response(200, stream=bodies[-1])

    async with Coalesce(Bottom(act), max_body=14) as coalesce:
        answers = await together(coalesce, asking(), asking())
        assert [body.closed for body in bodies] == [1, 0, 0]
        assert [await each.aread() for each in answers] == [b"123451234512345"] * 2
        assert coalesce.statistics().unshared == 2


async def test_an_answer_whose_bytes_are_gone_goes_to_one(autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        response = httpx.Response(200, stream=_Body(1))
        await response.aread()
        return response

    bottom = Bottom(act)
    async with Coalesce(bottom) as coalesce:
        answers = await together(coalesce, asking(), asking())
    assert [each.content for each in answers] == [b"12345"] * 2
    assert len(bottom.requests) == 2


async def test_over_the_bound_of_flights_a_call_goes_by_itself(autojump_clock) -> None:
    bottom = Bottom(answering())
    async with Coalesce(bottom, max_flights=2) as coalesce:
        third = asking(target="/3")
        await together(coalesce, asking(target="/1"), asking(target="/2"), third, asking(target="/1"))
        statistics = coalesce.statistics()
    # Which of the targets comes third is up to the scheduler.
    assert statistics.flown == 2
    assert statistics.crowded == len(bottom.requests) - 2
    assert statistics.crowded + statistics.joined == 2


# Failures


async def test_a_failure_fails_all_each_with_an_exception_of_its_own(autojump_clock) -> None:
    original = ConnectionReset("host:80 broke", untouched=True)

    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        raise original

    async with Coalesce(Bottom(act)) as coalesce:
        failures = await together(coalesce, asking(), asking(), asking())
    assert len({id(each) for each in failures} | {id(original)}) == 4
    for each in failures:
        assert isinstance(each, ConnectionReset)
        assert (each.kind, each.detail, str(each), each.untouched) == (Kind.RESET, "host:80 broke", str(original), True)
        assert each.__cause__ is original


async def test_a_failure_that_nobody_shares_is_raised_as_it_is(autojump_clock) -> None:
    original = ConnectFailed("no")

    async def act(request: httpx.Request) -> httpx.Response:
        raise original

    async with Coalesce(Bottom(act)) as coalesce:
        with pytest.raises(ConnectFailed) as caught:
            await coalesce.handle_async_request(asking())
    assert caught.value is original
    assert original.__cause__ is None


@pytest.mark.parametrize(
    "original",
    [
        httpx.ReadTimeout("slow", request=asking()),
        RuntimeError("bug", 1),
        OSError(5, "five"),
        KeyError("k"),
        ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
    ],
    ids=repr,
)
async def test_any_exception_can_be_copied(original: Exception, autojump_clock) -> None:
    async def act(request: httpx.Request) -> httpx.Response:
        await trio.sleep(1)
        raise original

    async with Coalesce(Bottom(act)) as coalesce:
        failures = await together(coalesce, asking(), asking())
        assert [type(each) for each in failures] == [type(original)] * 2
        assert {str(each) for each in failures} == {str(original)}
        assert all(each.args == original.args and each is not original for each in failures)
        # A bug below fails the calls, not the layer.
        assert len(await together(coalesce, asking(), asking())) == 2


async def test_what_fails_while_a_flight_is_cancelled_ends_no_other(autojump_clock) -> None:
    async def fail_in_the_end(request: httpx.Request) -> httpx.Response:
        async def crash() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in the end")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash)
            await trio.sleep_forever()
        raise AssertionError

    bottom = Bottom(fail_in_the_end)
    async with Coalesce(bottom) as coalesce:
        for _ in range(2):
            with trio.move_on_after(1) as scope:
                await coalesce.handle_async_request(asking())
            assert scope.cancelled_caught
        assert coalesce.statistics() == CoalesceStatistics(0, 0, 2, 0, 0, 2, 0)
