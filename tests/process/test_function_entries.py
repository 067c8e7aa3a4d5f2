"""The number of functions that a request enters, Python's and C's: a bound for later changes of the request path.

The difference between a route of eleven calls and one of one call, divided by ten, is the cost of a further call.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio

import umbel
from tests.support.coverage_marks import not_under_coverage
from tests.support.process.function_entries import count_entries

FURTHER_CALL_MAX = 65
REQUEST_MAX = 480
"""Of a request of one call."""
STATIC_MAX = 228
"""Of a request for a route with a ``respond``: it makes no composition. About 7 write its record, in batches."""
BROWSERS_MAX = 6
"""Of CORS and security fields together."""


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bounds are counts of Python 3.11")
@not_under_coverage
async def test_a_request_enters_no_more_functions_than_it_may(tmp_path: Path) -> None:
    with trio.fail_after(50):
        entries = await count_entries(tmp_path)
    print(
        f"{entries.per_request:.0f} function entries for a request of one call, "
        f"{entries.per_further_call:.0f} for each further one, "
        f"{entries.per_static_request:.0f} for a request of a fixed response"
    )
    assert 0 < len(entries.entered(Path(umbel.__file__).parent)) < entries.per_request <= REQUEST_MAX
    assert entries.per_further_call <= FURTHER_CALL_MAX
    assert entries.per_static_request <= STATIC_MAX


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the bounds are counts of Python 3.11")
@not_under_coverage
async def test_cors_and_security_fields_add_no_more_entries_than_they_may(tmp_path: Path) -> None:
    tables = '[cors]\norigins = ["https://*.app.example"]\n[headers]\npreset = "web"\nset = { x-own = "1" }\n'
    with trio.fail_after(50):
        entries = await count_entries(tmp_path, tables, (("origin", "https://one.app.example"),), runs=1)
    added = entries.caused_by(Path(umbel.__file__).parent / "gateway" / "browsers")
    print(f"{added:.1f} function entries of them for CORS and security fields")
    assert 0 < added <= BROWSERS_MAX
