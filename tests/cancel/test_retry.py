"""The retry layer, cancelled at every checkpoint in turn: nothing in flight, nothing open, the budget as it was."""

from __future__ import annotations

import pytest

from tests.support.checkpoints import for_every_checkpoint
from tests.support.scripts import Script, Step, call_request
from umbel.policy.budget import Budget
from umbel.upstream.errors import ConnectFailed
from umbel.upstream.retry import Retry
from umbel.upstream.state import STATE


@pytest.mark.parametrize(
    "steps",
    [
        [Step(0.1, 503), Step(0.1, 200)],
        [Step(0.1, ConnectFailed("no")), Step(0.1, ConnectFailed("no")), Step(0.1, 200)],
        [Step(0.1, 503, {"retry-after": "1"}, open=True), Step(0.1, 502, open=True), Step(0.1, 200)],
    ],
    ids=["statuses", "errors", "open responses"],
)
async def test_a_retried_call_leaves_nothing(steps: list[Step], autojump_clock) -> None:
    budget = Budget()
    script = Script(steps)
    layer = Retry(script, attempts=3, budget=budget)
    request = call_request(deadline=1e6)

    async def call() -> None:
        script.made.clear()
        script.streams.clear()
        assert (await layer.handle_async_request(request)).status_code == 200

    def check() -> None:
        assert script.in_flight == 0
        assert all(stream.closed for stream in script.streams)
        assert (budget.statistics().active, budget.statistics().extra) == (0, 0)
        assert STATE not in request.extensions

    assert await for_every_checkpoint(call, check) >= 2 * len(steps)
