"""Random values of a client in random places of a plan: the request succeeds or gets a 400 that names the value."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.composition.composing import answer, compose, plan
from umbel.composition.plan.plan import Plan
from umbel.composition.text.functions import FUNCTIONS
from umbel.core.model import Inputs

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.sampled_from(["", ".", "..", "a\r\nb", "\0", "1e999", "nan", "9" * 4301, "x" * 9000, 1e308, -1e308, -0.0])
)
KEYS = st.sampled_from(["a", "b", "n", "", "\0"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


def _expressions() -> list[str]:
    """Every function of JMESPath and of Umbel, with the client's values alone and together with a call's value."""
    found = ["body.a < body.b", "body.a[].n", "body.a[0:2]", "body.*.n", "body.a[?n > `1`]", "body.a || body.b"]
    for name, known in FUNCTIONS.FUNCTION_TABLE.items():
        types = [argument["types"] for argument in known["signature"]]
        if name == "map":
            found.append("map(&n, body.a)")
        elif any("expref" in wanted for wanted in types):
            found.append(f"{name}(body.a, &n)")
        else:
            found.append(f"{name}({', '.join(['body.a', 'body.b'][: len(types)])})")
    found += ["merge(body.a, body.b)", "not_null(body.a, body.b)", "to_number(body.a) < sum(body.b)"]
    return found


EXPRESSIONS = _expressions()
PLACES = {
    "shape": '[routes.answer]\nshape = "{e}"\n',
    "shape beside a call": '[routes.answer]\nshape = "[a, {e}]"\n',
    "header of the answer": '[routes.answer]\nheaders = {{ x-a = "{{body.a}} {e:.0}" }}\n',
    "when": 'when = "{e}"\n',
    "with": 'path = "/x/{{v}}"\nwith = {{ v = "{e}" }}\n',
    "params": 'params = {{ v = "{e}" }}\n',
    "json": 'method = "POST"\njson = {{ v = "{e}" }}\n',
    "form": 'method = "POST"\nform = {{ v = "{e}" }}\n',
    "whole form": 'method = "POST"\nform = "{e}"\n',
    "header": 'headers = {{ x-a = "{{v}}" }}\nwith = {{ v = "{e}" }}\n',
    "each": 'path = "/x/{{item}}"\neach = "{e}"\nmax_items = 3\n',
    "each with an expression": 'path = "/x{{?v}}"\neach = "body.a"\nwith = {{ v = "{e}" }}\n',
}


@functools.lru_cache(maxsize=1000)
def planned(place: str, expression: str) -> Plan:
    keys = PLACES[place].format(e=expression)
    path = "" if "path =" in keys else 'path = "/b"\n'
    return plan(
        '[[routes]]\npath = "/r"\n[routes.calls.a]\nupstream = "u"\npath = "/a"\n'
        f'[routes.calls.b]\nupstream = "u"\n{path}{keys}'
    )


async def check(place: str, expression: str, body: Any) -> None:
    ran = await compose(planned(place, expression), answer({"n": 1}), inputs=Inputs(body=body), deadline=60.0)
    failure = ran.result.failure
    if failure is None:
        msgspec.json.encode(ran.result.answer)
        return
    assert failure.of_client, failure
    assert failure.public[0].isupper()
    assert "body" in failure.public
    assert ran.recorder.logged == []


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
@given(st.sampled_from(sorted(PLACES)), st.sampled_from(EXPRESSIONS), st.fixed_dictionaries({"a": VALUES, "b": VALUES}))
def test_no_value_of_a_client_causes_a_server_error(place: str, expression: str, body: Any) -> None:
    trio.run(check, place, expression, body)
