"""Values of a composition as plain values: a value that came as a JSON text is decoded."""

from __future__ import annotations

from typing import Any

import msgspec

from umbel.composition.answer.result import Result


def read(value: Any) -> Any:
    """A value, or an answer made of values, as plain lists, objects, texts and numbers."""
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    if isinstance(value, dict):
        return {name: read(one) for name, one in value.items()}
    return [read(one) for one in value] if isinstance(value, list) else value


def read_result(result: Result) -> Result:
    """The result with plain values in its outcomes and in its answer."""
    outcomes = tuple(msgspec.structs.replace(each, value=read(each.value)) for each in result.outcomes)
    return msgspec.structs.replace(result, outcomes=outcomes, answer=read(result.answer))
