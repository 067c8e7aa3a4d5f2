"""Step 3: an Umbel application. The routes are compositions in Python; the configuration has the upstreams.

umbel serve -w 2 -b 127.0.0.1:8000 app:app
"""

from pathlib import Path

from pydantic import BaseModel, PositiveInt, ValidationError
from quart import request

from umbel import Umbel

app = Umbel.from_file(Path(__file__).with_name("umbel.toml"))


class Order(BaseModel):
    sku: str
    qty: PositiveInt


@app.compose("/dashboard/<int:user_id>", deadline=0.8)
async def dashboard(compose, user_id):
    async with compose.gather() as g:
        user = g.get("users", f"/{user_id}")
        orders = g.get("orders", "/", params={"user_id": user_id})
        segment = (await user)["segment"]
        offers = g.get("offers", "/{segment}", values={"segment": segment}, optional=True)
    return {"name": user.value["name"], "orders": orders.value, "offers": offers.value}


@app.compose("/orders/<int:order_id>", deadline=0.8)
async def order(compose, order_id):
    async with compose.gather() as g:
        found = g.get("orders", f"/{order_id}")
    return found.value


@app.compose("/orders", methods=["POST"], deadline=0.8)
async def add_order(compose):
    try:
        order = Order.model_validate(await request.get_json())
    except ValidationError as error:
        return {"errors": error.errors(include_url=False, include_context=False)}, 422
    async with compose.gather() as g:
        added = g.post("orders", "/", json=order.model_dump())
    return added.value, 201
