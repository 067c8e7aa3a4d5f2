"""The keys ``split``, ``split_key`` and ``mirror`` of a call: their values, defaults and constraints."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from umbel.config.schema.sections import Call

CALL = {"upstream": "v1", "path": "/"}


def test_a_call_has_neither_a_split_nor_a_mirror_by_default() -> None:
    call = Call.model_validate(CALL)
    assert (call.split, call.split_key, call.mirror, call.upstreams) == ({}, None, None, ("v1",))


def test_the_shares_are_numbers_and_may_be_zero_or_all() -> None:
    call = Call.model_validate({**CALL, "split": {"v2": "0%", "v3": "12.5%"}, "split_key": "client.ip"})
    assert call.split == {"v2": 0.0, "v3": 0.125}
    assert call.upstreams == ("v1", "v2", "v3")
    Call.model_validate({**CALL, "split": {"v2": "100%"}})
    Call.model_validate({**CALL, "split": {"a": "33.3%", "b": "33.3%", "c": "33.4%"}})


def test_a_mirror_copies_get_and_head_unless_it_names_methods() -> None:
    call = Call.model_validate({**CALL, "mirror": {"upstream": "v2", "share": "5%"}})
    assert call.mirror is not None
    assert (call.mirror.upstream, call.mirror.share, call.mirror.methods) == ("v2", 0.05, ("GET", "HEAD"))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"split": {"v2": "60%", "v3": "50%"}}, "the shares are 110% together, and they may be at most 100%"),
        ({"split": {"v1": "10%"}}, '"v1" is the upstream of this table, which gets the rest'),
        ({"split_key": "client.ip"}, "split_key has an effect only beside split"),
        ({"split": {"v2": 10}}, '10 is not a ratio; write a number and a percent sign, such as "20%"'),
        ({"split": {"v2": "101%"}}, "a share must be at most 100%"),
        ({"mirror": {"upstream": "v1", "share": "5%"}}, '"v1" gets the request itself, so no copy is sent to it'),
        ({"mirror": {"upstream": "v2"}}, "share"),
        ({"mirror": {"upstream": "v2", "share": "0%"}}, "a ratio must be above 0% and at most 100%"),
        ({"mirror": {"upstream": "v2", "share": "5%", "methods": []}}, "methods"),
        ({"mirror": {"upstream": "v2", "share": "5%", "methods": ["CONNECT"]}}, "methods"),
    ],
)
def test_keys_that_contradict_each_other_or_have_no_meaning_are_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Call.model_validate({**CALL, **keys})
    assert reason in str(caught.value)


def test_the_mirror_of_a_split_call_may_be_one_of_its_upstreams() -> None:
    keys = {"split": {"v2": "10%"}, "mirror": {"upstream": "v2", "share": "5%"}}
    assert Call.model_validate({**CALL, **keys}).mirror is not None
