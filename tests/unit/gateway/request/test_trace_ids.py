"""Request ids and trace contexts: kept, continued or new."""

from __future__ import annotations

import subprocess
import sys

import pytest

from umbel.gateway.request import trace_ids

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize("claimed", ["a", "req-1_2.3~4:5/6+7=8@9", "x" * 128])
def test_a_well_formed_request_id_is_kept(claimed: str) -> None:
    assert trace_ids.request_id(claimed) == claimed


@pytest.mark.parametrize("claimed", [None, "", "x" * 129, "two words", "line\r\nbreak", 'quo"te', "é"])
def test_a_malformed_request_id_is_replaced_by_a_new_one(claimed: str | None) -> None:
    first, second = trace_ids.request_id(claimed), trace_ids.request_id(claimed)
    assert first != second
    assert len(first) == 32
    assert int(first, 16) >= 0


def test_an_inbound_trace_is_continued_with_its_state() -> None:
    trace = trace_ids.trace(f"00-{TRACE}-{PARENT}-01", "vendor=1,other@x=two words")
    assert (trace.trace_id, trace.parent_id, trace.flags) == (TRACE, PARENT, "01")
    assert trace.state == "vendor=1,other@x=two words"


def test_unknown_trace_flags_are_not_forwarded() -> None:
    assert trace_ids.trace(f"00-{TRACE}-{PARENT}-ff", None).flags == "03"


def test_a_later_traceparent_version_is_read_by_its_first_four_parts() -> None:
    assert trace_ids.trace(f"cc-{TRACE}-{PARENT}-00-what-the-future-holds", None).trace_id == TRACE


@pytest.mark.parametrize(
    "parent",
    [
        None,
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
    ],
)
def test_a_malformed_parent_begins_a_new_sampled_trace_without_the_state(parent: str | None) -> None:
    trace = trace_ids.trace(parent, "vendor=1")
    assert trace.trace_id != TRACE
    assert (trace.parent_id, trace.flags, trace.state) == (None, "01", "")


@pytest.mark.parametrize(
    "state", ["=1", "UPPER=1", "a=b\x01", "a" * 600 + "=1", ",".join(f"k{n}=v" for n in range(33))]
)
def test_a_malformed_state_is_dropped_alone(state: str) -> None:
    trace = trace_ids.trace(f"00-{TRACE}-{PARENT}-01", state)
    assert (trace.trace_id, trace.state) == (TRACE, "")


def test_a_forked_process_makes_other_ids() -> None:
    forking = """
import os
from umbel.gateway.request import trace_ids
trace_ids.request_id(None)
reading, writing = os.pipe()
if not os.fork():
    os.write(writing, trace_ids.request_id(None).encode())
    os._exit(0)
os.wait()
print(trace_ids.request_id(None) != os.read(reading, 100).decode())
"""
    child = subprocess.run([sys.executable, "-c", forking], capture_output=True, text=True, timeout=50)
    assert child.stdout == "True\n", child.stderr


def test_request_ids_are_unique() -> None:
    assert len({trace_ids.request_id(None) for _ in range(1000)}) == 1000
    request_id, trace = trace_ids.identify(None, None, None)
    assert request_id != trace.trace_id
    assert trace.flags == "01"
