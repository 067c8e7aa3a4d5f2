"""An application with a route from its configuration, a composition in Python, and a plain Quart route.

Its upstreams are the sample services. Start them in another terminal (`make demo`), then run

    python examples/app.py            # or: hypercorn -k trio examples.app:app
    curl -i http://127.0.0.1:8001/report/42

The variables PORT, USERS_URL, ORDERS_URL, OFFERS_URL and LOGS_DIR replace the defaults.
"""

import os
from pathlib import Path

from umbel import Umbel

app = Umbel.from_file(Path(__file__).with_name("app.toml"))


@app.compose("/report/<int:user_id>", deadline=0.8)
async def report(compose, user_id):
    async with compose.gather() as g:  # a nursery: when the block ends, every call has ended
        profile = g.get("users", f"/users/{user_id}", name="profile")
        orders = g.get("orders", "/orders", params={"user_id": user_id}, default=[])
        segment = (await profile)["segment"]  # the orders are on their way meanwhile
        offers = g.get("offers", "/for/{segment}", values={"segment": segment}, optional=True)
    return {"name": profile.value["name"], "orders": len(orders.value), "offers": offers.value}


@app.get("/")
async def hello():
    return "A plain Quart route, as ever. Try /report/42\n"


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8001")))
