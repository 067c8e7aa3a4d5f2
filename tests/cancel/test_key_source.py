"""A source of keys that is cancelled at each of its steps: no fetch is in flight, and no waiter is left."""

from __future__ import annotations

import trio

from tests.support.auth.providers import SECOND, Provider, source
from tests.support.checkpoints import for_every_checkpoint
from umbel.auth.jwt.key_source import KeySource


async def slow() -> bytes:
    await trio.sleep(0.5)
    await trio.lowlevel.checkpoint()
    return SECOND


async def test_a_source_cancelled_at_any_step_leaves_nothing_and_can_run_again(autojump_clock: trio.abc.Clock) -> None:
    provider = Provider(slow)
    made: list[KeySource] = []
    results: list[bool] = []

    async def operation() -> None:
        keys = source(cooldown=1.0)
        made[:] = [keys]

        async def renew() -> None:
            results.append(await keys.renew())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keys.run, provider)
            await keys.wait_for_first_keys()
            await trio.sleep(2.0)
            async with trio.open_nursery() as waiting:
                for _ in range(3):
                    waiting.start_soon(renew)
            nursery.cancel_scope.cancel()

    async def check() -> None:
        assert provider.in_flight == 0
        if made:
            # The state is whole: the same source fetches again, and a waiter gets its keys.
            keys = made.pop()
            assert await keys.renew() is False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keys.run, provider)
                await keys.wait_for_first_keys()
                await trio.sleep(2.0)
                assert await keys.renew() is True
                nursery.cancel_scope.cancel()
            assert provider.in_flight == 0

    assert await for_every_checkpoint(operation, check, any_task=True) > 15
    assert True in results


async def test_a_waiter_cancelled_at_any_step_ends_no_fetch(autojump_clock: trio.abc.Clock) -> None:
    provider = Provider(slow)
    async with trio.open_nursery() as nursery:
        keys = source(cooldown=0.0)
        nursery.start_soon(keys.run, provider)
        await keys.wait_for_first_keys()

        async def check() -> None:
            await trio.sleep(2.0)
            assert provider.in_flight == 0
            assert keys.state == "ok"

        assert await for_every_checkpoint(keys.renew, check) >= 1
        nursery.cancel_scope.cancel()
