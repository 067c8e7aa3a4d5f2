"""A mailer waits for orders in the background, and nobody keeps its task. With asyncio.create_task."""

import asyncio
import gc
import weakref

from umbel.labs.kit import bar, note


class Orders:
    """Hands each order to all subscribers. Their queues are held weakly: who leaves need not unsubscribe."""

    def __init__(self) -> None:
        self.queues: weakref.WeakSet[asyncio.Queue[int]] = weakref.WeakSet()

    def subscribe(self) -> asyncio.Queue[int]:
        """Return a queue of the orders from now on."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        self.queues.add(queue)
        return queue

    def publish(self, order: int) -> None:
        """Hand an order to all subscribers."""
        for queue in self.queues:
            queue.put_nowait(order)


async def mailer(orders: Orders) -> None:
    """Confirm each order by mail."""
    with bar("mailer"):
        queue = orders.subscribe()
        while True:
            note(f"mail: order {await queue.get()}")


async def main() -> None:
    """Start the mailer, and take an order each second."""
    orders = Orders()
    asyncio.create_task(mailer(orders))
    with bar("shop"):
        for order in range(1, 6):
            await asyncio.sleep(1)
            if order == 3:
                gc.collect()  # Python does this by itself, now and then.
            orders.publish(order)
