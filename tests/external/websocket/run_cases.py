"""Run cases of the Autobahn test suite against a server; print the result of each, as one JSON object by case.

Usage: python run_cases.py URL CONCURRENCY CASE...
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys

from kosoku import FailureError, run_fuzzingclient


async def main(url: str, concurrency: str, *cases: str) -> None:
    try:
        results = await run_fuzzingclient(url, cases=cases, concurrency=int(concurrency))
    except FailureError as error:  # The caller compares the results, whatever they are.
        results = error.results
    told = {
        each.case_id: {
            "behavior": each.behavior.value,
            "close": each.behavior_close.value,
            "code": each.remote_close_code,
            "reason": each.remote_close_reason,
            "clean": each.was_clean,
            "failed by the client": each.failed_by_me,
            "received": hashlib.sha256(repr(each.received).encode()).hexdigest(),
        }
        for each in results
    }
    print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
