"""Eight requests at once, with two hedges each, to an upstream of four places. With a trio nursery."""

import trio

from umbel.labs.kit import bar


async def call(number: int, places: trio.Semaphore, race: trio.CancelScope) -> None:
    """Ask the upstream, which works on four calls at a time, for 1 s each. The first answer ends the race."""
    with bar(f"call {number}"):
        async with places:
            await trio.sleep(1)
            race.cancel(reason="another call was faster")


async def request(places: trio.Semaphore) -> None:
    """Make a call, after 0.4 s without an answer another one, and again; the first answer counts."""
    with bar("request"):
        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                nursery.start_soon(call, number, places, nursery.cancel_scope)
                await trio.sleep(0.4)


async def main() -> None:
    """Handle eight requests."""
    places = trio.Semaphore(4)
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(request, places)
