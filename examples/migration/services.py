"""The services behind the page that migrates: users, orders and offers, in one program.

    hypercorn -k trio -b 127.0.0.1:9001 services:app

It prints a line for each call that ended early because its caller had closed the connection. MOODS gives services a
mood, as in MOODS=orders=drip,users=flaky:

- drip: the service answers, but the body takes ten minutes, a byte now and then.
- fail: it answers with 500.
- flaky: each second call gets 503.
"""

import json
import os
from collections import Counter
from contextlib import contextmanager

import trio
from quart import Response, request
from quart_trio import QuartTrio

DRIP_PAUSE_S, DRIP_BYTES = 0.2, 3000
USERS = {42: {"name": "Ada", "segment": "garden"}, 43: {"name": "Grace", "segment": "kitchen"}}
ORDERS = {1: {"id": 1, "user_id": 42, "sku": "dill", "qty": 3}, 2: {"id": 2, "user_id": 42, "sku": "fennel", "qty": 1}}
OFFERS = {"garden": ["Sow now: dill at half price"], "kitchen": ["Three breads for two"]}


class Calls:
    """The calls that are being answered, for those who wait for a change."""

    def __init__(self):
        self.running = Counter()
        self.seen = Counter()
        self._changed = trio.Event()

    @contextmanager
    def one_more(self, service):
        self.seen[service] += 1
        self._change(service, +1)
        try:
            yield
        except trio.Cancelled:
            print(f"{service}: ended early, the caller has closed the connection", flush=True)
            raise
        finally:
            self._change(service, -1)

    def _change(self, service, by):
        self.running[service] += by
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, **running):
        """Wait until exactly these numbers of calls are running: until(orders=1)."""
        while +self.running != Counter(running):
            await self._changed.wait()


calls = Calls()
moods = dict(mood.split("=") for mood in os.environ.get("MOODS", "").split(",") if mood)
app = QuartTrio(__name__, static_folder=None)


async def answered(service, value, status=200):
    """The response of a service, as its mood lets it be."""
    with calls.one_more(service):
        match moods.get(service):
            case "fail":
                return {"error": f"{service} is out of order"}, 500
            case "flaky" if calls.seen[service] % 2:
                return {"error": f"{service} is restarting"}, 503
        await trio.sleep(0.01)
    if moods.get(service) == "drip":
        return Response(dripping(service, json.dumps(value)), status, content_type="application/json")
    return value, status


async def dripping(service, text):
    with calls.one_more(service):
        yield text.encode()
        for _ in range(DRIP_BYTES):
            if moods.get(service) == "drip":
                await trio.sleep(DRIP_PAUSE_S)
                yield b" "


@app.get("/users/<int:number>")
async def user(number):
    found = USERS.get(number)
    return await answered("users", found or {"error": "there is no such user"}, 200 if found else 404)


@app.get("/orders/")
async def orders():
    user_id = request.args.get("user_id", type=int)
    return await answered("orders", [order for order in ORDERS.values() if order["user_id"] == user_id])


@app.get("/orders/<int:number>")
async def order(number):
    found = ORDERS.get(number)
    return await answered("orders", found or {"error": "there is no such order"}, 200 if found else 404)


@app.post("/orders/")
async def add_order():
    given = await request.get_json()
    if not isinstance(given.get("sku"), str) or not isinstance(given.get("qty"), int) or given["qty"] < 1:
        return await answered("orders", {"error": "sku must be a text, and qty a positive whole number"}, 422)
    return await answered("orders", {"id": 3, "sku": given["sku"], "qty": given["qty"]}, 201)


@app.get("/offers/<segment>")
async def offers(segment):
    return await answered("offers", OFFERS[segment])
