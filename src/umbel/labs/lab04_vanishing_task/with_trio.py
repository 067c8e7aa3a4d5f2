"""A mailer waits for orders in the background. With a trio nursery."""

import gc
import weakref

import trio

from umbel.labs.kit import bar, note


class Queue:
    """The orders that a subscriber has not taken yet."""

    def __init__(self) -> None:
        self.sender, self.receiver = trio.open_memory_channel[int](10)


class Orders:
    """Hands each order to all subscribers. Their queues are held weakly: who leaves need not unsubscribe."""

    def __init__(self) -> None:
        self.queues: weakref.WeakSet[Queue] = weakref.WeakSet()

    def subscribe(self) -> Queue:
        """Return a queue of the orders from now on."""
        queue = Queue()
        self.queues.add(queue)
        return queue

    def publish(self, order: int) -> None:
        """Hand an order to all subscribers."""
        for queue in self.queues:
            queue.sender.send_nowait(order)


async def mailer(orders: Orders) -> None:
    """Confirm each order by mail."""
    with bar("mailer"):
        queue = orders.subscribe()
        while True:
            note(f"mail: order {await queue.receiver.receive()}")


async def main() -> None:
    """Start the mailer, and take an order each second."""
    orders = Orders()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mailer, orders)
        with bar("shop"):
            for order in range(1, 6):
                await trio.sleep(1)
                if order == 3:
                    gc.collect()  # Python does this by itself, now and then.
                orders.publish(order)
