"""Eight requests at once, with two hedges each, to an upstream of four places. With trio, and Umbel's budget."""

import trio

from umbel.labs.kit import bar
from umbel.policy.retry_budget import Budget


async def call(number: int, places: trio.Semaphore, race: trio.CancelScope) -> None:
    """Ask the upstream, which works on four calls at a time, for 1 s each. The first answer ends the race."""
    with bar(f"call {number}"):
        async with places:
            await trio.sleep(1)
            race.cancel(reason="another call was faster")


async def hedge(number: int, places: trio.Semaphore, race: trio.CancelScope, budget: Budget) -> None:
    """Make a further call, if the budget permits it."""
    if budget.take():
        try:
            await call(number, places, race)
        finally:
            budget.give_back()


async def request(places: trio.Semaphore, budget: Budget) -> None:
    """Make a call, after 0.4 s without an answer another one, and again; the first answer counts."""
    with bar("request") as this:
        budget.enter(this)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, 1, places, nursery.cancel_scope)
                for number in (2, 3):
                    await trio.sleep(0.4)
                    nursery.start_soon(hedge, number, places, nursery.cancel_scope, budget)
        finally:
            budget.leave(this)


async def main() -> None:
    """Handle eight requests, whose hedges may be a fifth of the calls under way, or three."""
    places, budget = trio.Semaphore(4), Budget(ratio=0.2, minimum=3)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(request, places, budget)
